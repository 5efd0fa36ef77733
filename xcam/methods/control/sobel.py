"""Edges: the control for methods that show where the image changes, whatever the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Target

__all__ = ["Sobel"]


@dataclass(frozen=True)
class Sobel(Method):
    """Sobel: the strength of the image's edges, a control.

    M = √(G_x² + G_y²), the Sobel operator's derivatives (weights 1, 2, 1 across and −1, 0, 1
    along) of the mean over channels, the border replicated. As a control: Adebayo et al., 2018,
    arXiv:1810.03292, whose finding was that some methods do no more.
    """

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="sobel",
        title="Sobel",
        paper="",
        family="control",
        cost="none",
        class_specific=False,
        signed=False,
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, H, W); see `Method.maps`."""
        gray = F.pad(images.detach().mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        across, along = gray.new_tensor([1, 2, 1]), gray.new_tensor([-1, 0, 1])
        vertical = torch.outer(along, across)
        kernels = torch.stack([vertical, vertical.T])[:, None]
        down, right = F.conv2d(gray, kernels).unbind(1)
        return (down.square() + right.square()).sqrt()
