"""Maps as `.npy` arrays, one a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xcam.errors import FileFormatError
from xcam.runs import files

__all__ = ["read_array", "write_array"]

_COLORS = (3, 4)  # channels of a picture, without and with transparency


def write_array(path: Path, single: Tensor) -> None:
    """Write a map (h, w) as `.npy`, float32 as it is; its folder is made where it is missing."""
    files.create_folder(path.parent)
    content = io.BytesIO()
    np.save(content, single.detach().float().cpu().numpy(), allow_pickle=False)
    files.write(path, content.getvalue())


def read_array(path: Path) -> tuple[list[Tensor], None]:
    """Read the map of a file, (h, w), alone in a list, and no class.

    Raises:
        FileFormatError: A damaged file, or one that holds no array.
        ValueError: An array of another shape, or of a picture.
    """
    try:
        values = torch.from_numpy(_cast_numbers(np.load(path, allow_pickle=False)))
    except (EOFError, OSError, TypeError, ValueError) as error:
        raise FileFormatError(f"{str(path)!r} is damaged, or no array: {error}") from error
    try:
        return [_extract_map(values)], None
    except ValueError as error:
        raise ValueError(f"{str(path)!r} must hold (h, w) or (C, h, w), {error}") from error


def _cast_numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Return bytes as they are, other integers as int64, all else as float32."""
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    whole = np.issubdtype(values.dtype, np.integer)
    return np.ascontiguousarray(values, np.int64 if whole else np.float32)


def _extract_map(values: Tensor) -> Tensor:
    """Return the map (h, w) of an array; its errors are completed by the caller."""
    shape = tuple(values.shape)
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"got {shape}")
    if len(shape) == 2:
        return values
    axis = _find_channel_axis(shape)
    if values.dtype != torch.uint8:
        return values.sum(axis)
    gray = values.select(axis, 0)
    if bool((values != gray.unsqueeze(axis)).any()):
        raise ValueError(
            f"got {shape} bytes of several colours, a picture and no map; store the map itself, "
            "before it is drawn"
        )
    return gray


def _find_channel_axis(shape: tuple[int, ...]) -> int:
    """Return the axis of the channels: that of 1; else the last if of 3 or 4; else the first."""
    first, middle, last = shape
    if first == 1 or (last != 1 and last not in _COLORS):
        return 0
    if last != 1 and (first in _COLORS or middle in _COLORS):
        raise ValueError(f"got {shape}, whose channels may be first or last; store (h, w)")
    return 2
