"""The masks that L-CAM's head makes of features, and the measures of them in its loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["area", "make_masks", "select", "variation"]


def make_masks(head: nn.Module, features: Tensor) -> Tensor:
    """Return the map a of each class, (B, K, h, w) in [0, 1], in float32 at least."""
    raw: Tensor = head(features)
    return raw.to(torch.promote_types(raw.dtype, torch.float32)).sigmoid()


def select(masks: Tensor, classes: Tensor) -> Tensor:
    """Return, of the maps (B, K, h, w) of each image, that of its class, (B, 1, h, w)."""
    return masks[torch.arange(len(masks), device=masks.device), classes][:, None]


def variation(masks: Tensor) -> Tensor:
    """Return V of maps (N, M, h, w): summed over all maps, half the mean over N."""
    down, right = masks[:, :, 1:] - masks[:, :, :-1], masks[..., 1:] - masks[..., :-1]
    edges = (masks[:, :, 0], masks[:, :, -1], masks[..., 0], masks[..., -1])
    border = torch.stack([edge.square().sum() for edge in edges]).sum()
    return (down.square().sum() + right.square().sum() + 0.3 * border) / (2 * len(masks))


def area(masks: Tensor, power: float) -> Tensor:
    """Return the mean of maps in [0, 1] to a power; its derivative is finite at 0."""
    return (masks + 0.0005).pow(power).mean()
