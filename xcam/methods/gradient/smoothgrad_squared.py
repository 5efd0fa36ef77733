"""SmoothGrad-Squared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import MethodSpec, Target
from xcam.methods.gradient.noisy_copies import NoiseEnsemble

__all__ = ["SmoothGradSquared"]


@dataclass(frozen=True)
class SmoothGradSquared(NoiseEnsemble):
    """SmoothGrad-Squared: the mean squared gradient over noisy copies of the image.

    M = 1/n Σ_k (∂y/∂x (x + ε_k))², ε_k ~ N(0, (noise · (max x − min x))²), summed over channels
    (Hooker et al., 2019, arXiv:1806.10758). White Box squares maps stretched to [0, 1] instead,
    so that a gradient of zero counts as a quarter or so: `preset="whitebox"`.

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
        stretched: Whether to scale the mean of the squares into [0, 1] over all its elements.
        space: Where noise is added and gradients are taken: to images as they are given, or as the
            model normalized them. A base explains images as they are given.
        preset: `"calm"` sets what CALM's published code has: n_samples=50, noise=0.25,
            reduce="abs_max", reduce_each=True, output="logit" and, without a base,
            space="normalized". `"whitebox"` sets n_samples=50, noise=2.0, spread="whitebox",
            reduce="sum" and stretched=True, over `saliency` or the base, with the base's own preset
            of this name if it is only named and has one.
    """

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="smoothgrad_squared",
        title="SmoothGrad-Squared",
        aliases=("smoothgrad_sq",),
        paper="Hooker et al., 2019, arXiv:1806.10758",
        family="gradient",
        cost="1 forward + n_samples × (forward + backward)",
        stochastic=True,
        signed=False,
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, as `SmoothGrad`'s, nowhere negative; see `Method.maps`."""
        return self.finish(self.average(model, images, target, torch.square))
