"""SmoothGrad."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import Annotated, ClassVar

from torch import Tensor, nn

from xcam.core import Count, Method, MethodSpec, NonNegative, Output, Range, Reduce, Target
from xcam.methods.gradient.input_gradients import (
    CALM_NOISE,
    average_noisy_gradients,
    make_reduction,
)

__all__ = ["SmoothGrad"]


@dataclass(frozen=True)
class SmoothGrad(Method):
    """SmoothGrad: the mean gradient over noisy copies of the image.

    M = 1/n Σ_k ∂y/∂x (x + ε_k), ε_k ~ N(0, (noise · (max x − min x))²) (Smilkov et al., 2017,
    arXiv:1706.03825). Signed gradients are averaged; the channels are reduced last, as the sum of
    magnitudes. Not reproduced of White Box: maps stretched to [0, 1] before they are averaged, and
    a σ that divides by the range and is squared, (2/(max x − min x))².

    Attributes:
        n_samples: Noisy copies; memory does not grow with them.
        noise: σ as a fraction of each image's range.
        seed: Of the noise, which is the same for every image.
        output: What of the output is y.
        reduce: How the channels become one.
        reduce_each: Whether the channels of each gradient become one, before all else, instead of
            those of the result.
        preset: `"calm"` sets what CALM's published code has: n_samples=50, noise=0.25,
            reduce="abs_max", reduce_each=True and output="logit".
    """

    n_samples: Count = 25
    noise: NonNegative = 0.15
    seed: Annotated[int, Range(least=0)] = 0
    output: Output = "logit"
    reduce: Reduce = "abs_sum"
    reduce_each: bool = False
    preset: InitVar[str | None] = None

    presets: ClassVar = {"calm": CALM_NOISE}
    spec: ClassVar[MethodSpec] = MethodSpec(
        name="smoothgrad",
        title="SmoothGrad",
        paper="Smilkov et al., 2017, arXiv:1706.03825",
        family="gradient",
        cost="1 forward + n_samples × (forward + backward)",
        stochastic=True,
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, the mean gradient, (B, C, H, W), or reduced; see `Method.maps`."""
        settings = self.output, self.n_samples, self.noise, self.seed
        reduction = make_reduction(self.reduce, self.reduce_each)
        return average_noisy_gradients(model, images, target, *settings, reduction)
