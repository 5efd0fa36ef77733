"""A Gaussian in the middle: the control for photographers' habit of centering their object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Positive, Target

__all__ = ["CenterGaussian"]


@dataclass(frozen=True)
class CenterGaussian(Method):
    """Center Gaussian: a bump in the middle of every image, a control.

    M_ij = exp(−(u_i² + v_j²) / (2σ²)), u and v the distances of a pixel's center from the image's,
    each in sides of the image: so the bump is as wide or high as the image is.

    Attributes:
        sigma: σ in sides of the image.
    """

    sigma: Positive = 0.25

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="center_gaussian",
        title="Center Gaussian",
        paper="",
        family="control",
        cost="none",
        class_specific=False,
        signed=False,
        normalized=True,
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, H, W); see `Method.maps`."""
        rows, columns = (_bump(side, self.sigma, images.device) for side in images.shape[2:])
        return (rows[:, None] * columns).expand(len(images), -1, -1)


def _bump(side: int, sigma: float, device: torch.device) -> Tensor:
    distance = (torch.arange(side, device=device) - (side - 1) / 2) / side
    return (-0.5 * (distance / sigma) ** 2).exp()
