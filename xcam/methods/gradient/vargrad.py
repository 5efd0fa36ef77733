"""VarGrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from xcam.core import MethodSpec, Range, Target
from xcam.methods.gradient.noisy_copies import NoiseEnsemble
from xcam.methods.postprocessing import stretch_elements

__all__ = ["VarGrad"]


@dataclass(frozen=True)
class VarGrad(NoiseEnsemble):
    """VarGrad: the variance of the gradient over noisy copies of the image.

    M = 1/n Σ_k (g_k − ḡ)² with g_k = ∂y/∂x (x + ε_k), ε_k ~ N(0, (noise · (max x − min x))²),
    summed over channels (Adebayo et al., 2018, arXiv:1810.03292). The divisor is n, not n − 1: the
    variance of these samples, SmoothGrad-Squared less SmoothGrad's square. White Box subtracts the
    square of a stretched mean of other noise, which is no variance: `preset="whitebox"`.

    Attributes:
        n_samples: Noisy copies, at least two; memory does not grow with them.
        noise: σ as a fraction of each image's range.
        seed: Of the noise, which is the same for every image.
        output: What of the output is y; a base has its own.
        reduce: How the channels become one.
        reduce_each: Whether the channels of each gradient, or map, become one before all else,
            instead of those of the result.
        base: A method whose maps are combined instead of the gradients: an object, its name, or
            name and settings, as in `("gradcam", {"layer": "layer3"})`. It explains the class that
            is explained of the clean image, n_samples times; what is random in it is the same for
            all copies.
        spread: What σ is: `"range"`, noise · (max x − min x), or `"whitebox"`, (noise / (max x −
            min x))².
        stretched: White Box's form instead: the mean of the squares less the square of SmoothGrad's
            map, which is made of n_samples other copies and scaled into [0, 1], and so is the
            result.
        space: Where noise is added and gradients are taken: to images as they are given, or as the
            model normalized them. A base explains images as they are given.
        preset: `"calm"` sets what CALM's published code has: n_samples=50, noise=0.25,
            reduce="abs_max", reduce_each=True, output="logit" and, without a base,
            space="normalized". `"whitebox"` sets n_samples=50, noise=2.0, spread="whitebox",
            reduce="sum" and stretched=True, over `saliency` or the base, with the base's own preset
            of this name if it is only named and has one.
    """

    n_samples: Annotated[int, Range(least=2)] = 25

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
        """Return raw maps, as `SmoothGrad`'s, nowhere negative; see `Method.maps`."""
        if self.stretched:
            squares = self.average(model, images, target, torch.square)
            mean = self.average(model, images, target, first=self.n_samples)
            return stretch_elements(squares - stretch_elements(mean).square())
        first: Tensor | None = None
        for samples, rows, maps in self.iterate(model, images, target):
            if first is None:
                first = maps.new_zeros(len(images), *maps.shape[1:])
                total, squares = torch.zeros_like(first), torch.zeros_like(first)
            new = samples.count(0)  # the rows of a first sample come before all others
            first[rows[:new]] = maps[:new]
            deviation = maps - first[rows]  # keeps the digits that squares of means would lose
            total.index_add_(0, rows, deviation)
            squares.index_add_(0, rows, deviation.square())
        return (squares / self.n_samples - (total / self.n_samples).square()).clamp(min=0)
