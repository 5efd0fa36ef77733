"""Float64 where there is any: what float32 would round away in a probability or a threshold."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["find_finest_dtype", "to_finest"]


def find_finest_dtype(device: torch.device) -> torch.dtype:
    """Float64; float32 on the devices of Apple's Metal, which have no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def to_finest(values: Tensor) -> Tensor:
    """The values as precise as their device computes."""
    return values.to(find_finest_dtype(values.device))
