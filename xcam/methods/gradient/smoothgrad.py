"""SmoothGrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import MethodSpec, Reduce, Target
from xcam.methods.gradient.noisy_copies import NoiseEnsemble

__all__ = ["SmoothGrad"]


@dataclass(frozen=True)
class SmoothGrad(NoiseEnsemble):
    """SmoothGrad: the mean gradient over noisy copies of the image.

    M = 1/n Σ_k ∂y/∂x (x + ε_k), ε_k ~ N(0, (noise · (max x − min x))²) (Smilkov et al., 2017,
    arXiv:1706.03825). Signed gradients are averaged; the channels are reduced last, as the sum of
    magnitudes. White Box averages maps that were each stretched to [0, 1], with a σ that divides by
    the range and is squared, (2/(max x − min x))²: `preset="whitebox"`.

    Attributes:
        n_samples: Noisy copies; memory does not grow with them.
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
        stretched: Whether to scale the mean of the maps into [0, 1] over all its elements.
        space: Where noise is added and gradients are taken: to images as they are given, or as the
            model normalized them. A base explains images as they are given.
        preset: `"calm"` sets what CALM's published code has: n_samples=50, noise=0.25,
            reduce="abs_max", reduce_each=True, output="logit" and, without a base,
            space="normalized". `"whitebox"` sets n_samples=50, noise=2.0, spread="whitebox",
            reduce="sum" and stretched=True, over `saliency` or the base, with the base's own preset
            of this name if it is only named and has one.
    """

    reduce: Reduce = "abs_sum"

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="smoothgrad",
        title="SmoothGrad",
        paper="Smilkov et al., 2017, arXiv:1706.03825",
        family="gradient",
        cost="1 forward + n_samples × (forward + backward)",
        stochastic=True,
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, the mean, (B, C, H, W), reduced, or as the base's; see `Method.maps`."""
        return self.finish(self.average(model, images, target))
