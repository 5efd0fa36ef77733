"""Maps as tensors: their channels reduced, those from elsewhere checked, some of them chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from xcam.core.finite import check_finite
from xcam.core.method import Reduce

__all__ = ["check_maps", "check_place", "find_positions", "reduce_channels"]


def reduce_channels(raw: Tensor, reduce: Reduce) -> Tensor:
    """Reduce a (B, C, H, W) attribution to one value a pixel; (B, h, w) maps pass through."""
    if raw.ndim == 3:
        return raw
    if reduce == "sum":
        return raw.sum(1)
    if reduce == "abs_sum":
        return raw.abs().sum(1)
    if reduce == "abs_max":
        return raw.abs().amax(1)
    raise ValueError(f"reduce must be 'sum', 'abs_sum' or 'abs_max', got {reduce!r}")


def check_maps(maps: object, count: int, name: str) -> Tensor:
    """Return maps from elsewhere as a float32 tensor, checked; the name is for the errors."""
    label = "maps" if name == "maps" else f"maps of {name!r}"
    if isinstance(maps, list | tuple) and all(isinstance(m, Tensor | np.ndarray) for m in maps):
        if len({tuple(one.shape) for one in maps}) > 1:
            raise ValueError(f"{name} gave maps of different sizes; make an explanation of each")
        maps = torch.stack([torch.as_tensor(one) for one in maps]) if maps else torch.empty(0)
    if not isinstance(maps, Tensor | np.ndarray):
        raise TypeError(f"{label} must be a tensor of {count} maps, got a {type(maps).__name__}")
    if maps.ndim not in (3, 4) or len(maps) != count or 0 in maps.shape:
        raise ValueError(f"{label} must be ({count}, h, w), got {tuple(maps.shape)}")
    raw = torch.as_tensor(maps).detach().to(torch.float32, copy=True)
    return check_finite(
        raw,
        lambda image: f"{name} gave a map that is not finite" + f" for image {image}" * (count > 1),
        error=ValueError,
    )


def check_place(place: object) -> None:
    """Raise unless maps can be moved to this device or floating-point dtype."""
    if isinstance(place, torch.dtype):
        if not place.is_floating_point:
            raise TypeError(f"maps are floating point, got {place}; use explanation.maps.to(…)")
    elif isinstance(place, str):
        try:
            torch.device(place)
        except RuntimeError as error:
            raise ValueError(
                f"torch knows no device {place!r}; name one such as 'cpu' or 'cuda:0'"
            ) from error
    elif not isinstance(place, torch.device):
        raise TypeError(f"maps move to a device or a dtype, got {place!r}; name one such as 'cpu'")


def find_positions(index: object, count: int) -> Tensor:
    """Return the positions, int64, that an index of any kind chooses among `count` images."""
    values: Any = index.cpu().numpy() if isinstance(index, Tensor) else index
    try:
        chosen = np.atleast_1d(
            np.arange(count)[list(values) if isinstance(values, tuple) else values]
        )
    except IndexError as error:
        raise IndexError(f"image {index!r} of an explanation of {count} images") from error
    if chosen.ndim != 1:
        raise IndexError(f"the index of an explanation must be flat, got shape {chosen.shape}")
    return torch.from_numpy(chosen.copy())
