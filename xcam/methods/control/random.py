"""A random map: the control that every method should beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Target
from xcam.imaging import hash_images

__all__ = ["Random"]


@dataclass(frozen=True)
class Random(Method):
    """Random: independent uniform noise in [0, 1) a pixel, a control.

    The noise is drawn from the seed and a hash of the image's own float32 pixels: it depends on
    neither batch nor order, and differs from image to image. Were it one map for all, a mean over
    images would judge that one draw; of a metric that looks at the peak alone, a single place.

    Attributes:
        seed: Of the noise, beside the image.
    """

    seed: int = 0

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="random",
        title="Random",
        paper="",
        family="control",
        cost="none",
        class_specific=False,
        stochastic=True,
        signed=False,
        normalized=True,
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, H, W); see `Method.maps`."""
        size = images.shape[2:]
        noise = [
            torch.rand(size, generator=torch.Generator().manual_seed(state))
            for state in hash_images(images, self.seed)
        ]
        return torch.stack(noise).to(images.device)
