"""A random map: the control that every method should beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Target

__all__ = ["Random"]


@dataclass(frozen=True)
class Random(Method):
    """Random: independent uniform noise in [0, 1) a pixel, a control.

    The noise depends on the seed and the images' size alone: all images get the same map.

    Attributes:
        seed: Of the noise.
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
        normalised=True,
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """See `Method.maps`; gives (B, H, W)."""
        noise = torch.rand(images.shape[2:], generator=torch.Generator().manual_seed(self.seed))
        return noise.to(images.device).expand(len(images), -1, -1)
