"""The finest floating-point type of a device, where float32 would round too much."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["find_finest_dtype", "to_finest", "to_result"]


def find_finest_dtype(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on Apple's Metal devices, which have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def to_finest(values: Tensor) -> Tensor:
    """Return the values in the finest floating-point type of their device."""
    return values.to(find_finest_dtype(values.device))


def to_result(values: Tensor, images: Tensor) -> Tensor:
    """Return statistics in the images' floating-point type, or in float32 where that is coarser."""
    return values.to(torch.promote_types(images.dtype, torch.float32))
