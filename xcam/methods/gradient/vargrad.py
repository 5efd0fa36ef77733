"""VarGrad."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Method, MethodSpec, NonNegative, Output, Range, Reduce, Target
from xcam.engine.clean import bind_clean_pass
from xcam.methods.gradient.input_gradients import (
    CALM_NOISE,
    iterate_noisy_gradients,
    make_reduction,
)

__all__ = ["VarGrad"]


@dataclass(frozen=True)
class VarGrad(Method):
    """VarGrad: the variance of the gradient over noisy copies of the image.

    M = 1/n Σ_k (g_k − ḡ)² with g_k = ∂y/∂x (x + ε_k), ε_k ~ N(0, (noise · (max x − min x))²),
    summed over channels (Adebayo et al., 2018, arXiv:1810.03292). The divisor is n, not n − 1: the
    variance of these samples, SmoothGrad-Squared less SmoothGrad's square. White Box subtracts a
    stretched mean of other noise, which is no variance and may be negative; not reproduced.

    Attributes:
        n_samples: Noisy copies, at least two; memory does not grow with them.
        noise: σ as a fraction of each image's range.
        seed: Of the noise, which is the same for every image.
        output: What of the output is y.
        reduce: How the channels become one.
        reduce_each: Whether the channels of each gradient become one, before all else, instead of
            those of the result.
        preset: `"calm"` sets what CALM's published code has: n_samples=50, noise=0.25,
            reduce="abs_max", reduce_each=True and output="logit".
    """

    n_samples: Annotated[int, Range(least=2)] = 25
    noise: NonNegative = 0.15
    seed: Annotated[int, Range(least=0)] = 0
    output: Output = "logit"
    reduce: Reduce = "sum"
    reduce_each: bool = False
    preset: InitVar[str | None] = None

    presets: ClassVar = {"calm": CALM_NOISE}
    spec: ClassVar[MethodSpec] = MethodSpec(
        name="vargrad",
        title="VarGrad",
        aliases=("smoothgrad_var",),
        paper="Adebayo et al., 2018, arXiv:1810.03292",
        family="gradient",
        cost="1 forward + n_samples × (forward + backward)",
        stochastic=True,
        signed=False,
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, C, H, W), or reduced, nowhere negative; see `Method.maps`."""
        bind_clean_pass(model, images, target)
        reduction = make_reduction(self.reduce, self.reduce_each)
        exact = torch.promote_types(images.dtype, torch.float32)
        first = torch.zeros_like(reduction(images), dtype=exact)
        total, squares = torch.zeros_like(first), torch.zeros_like(first)
        for samples, rows, whole in iterate_noisy_gradients(
            model, images, target, self.output, self.n_samples, self.noise, self.seed
        ):
            gradient = reduction(whole)
            new = samples.count(0)  # the rows of a first sample come before all others
            first[rows[:new]] = gradient[:new]
            deviation = gradient - first[rows]  # keeps the digits that squares of means would lose
            total.index_add_(0, rows, deviation)
            squares.index_add_(0, rows, deviation.square())
        return (squares / self.n_samples - (total / self.n_samples).square()).clamp(min=0)
