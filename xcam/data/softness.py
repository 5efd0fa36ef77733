"""Soft masks, with edges or gradients between black and white, and masks of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["REMEDY", "is_soft"]

REMEDY = "save it as a gray PNG, 255 on the object and 0 elsewhere"

_Values = NDArray[Any]


def is_soft(values: _Values, top: int, certain: float = 0.7) -> bool:
    """Return whether values between 0 and white are edges or gradients rather than labels.

    Those of a label are areas; or lines and dots, which are no steps between their neighbors.

    Args:
        values: (H, W), whole numbers.
        top: White.
        certain: The share of steps, of the pixels outside of areas, from which on it is soft.

    Raises:
        ValueError: They may be either, there is no white to tell where the middle is, or an area
            would be lost with the darker half.
    """
    between = (values > 0) & (values < values.max())
    if not between.any():
        return False
    is_equal = ndimage.maximum_filter(values, 2) == ndimage.minimum_filter(values, 2)
    is_area = ndimage.maximum_filter(is_equal, 2, origin=-1)  # a block of 2×2 marks all its pixels
    levels = np.unique(values[between])
    is_bright = levels > values.max() / 2
    has_both = is_bright.any() and not is_bright.all()
    has_few = len(levels) <= 16 and values.max() < top // 8  # numbers, and much darker than white
    if not has_both or has_few or is_area[between].mean() >= 0.5:
        return False
    steps = _find_steps(values)[between & ~is_area].mean()  # of values drawn at random, 5/9
    if steps < 0.5:
        return False
    if steps < certain or len(levels) < 3:
        raise ValueError(f"has grays that may be labels or soft edges; {REMEDY}")
    if values.max() < top:
        raise ValueError(
            f"has soft edges but no white (maximum {values.max()}), so its threshold is unknown; "
            f"{REMEDY}"
        )
    _check_parts(values, is_area & (values >= top // 16), top)
    return True


def _find_steps(values: _Values) -> _Values:
    """Return which values lie between those on their left and right, or above and below."""
    padded = np.pad(values, 1, mode="edge")
    across = np.sort([padded[1:-1, :-2], padded[1:-1, 2:]], 0)
    down = np.sort([padded[:-2, 1:-1], padded[2:, 1:-1]], 0)
    is_step: _Values = np.any(
        [(low < values) & (values < high) for low, high in (across, down)], axis=0
    )
    return is_step


def _check_parts(values: _Values, is_area: _Values, top: int) -> None:
    """Refuse a soft mask with a gray area in a part that nowhere is half white."""
    parts, count = ndimage.label(values > 0, np.ones((3, 3)))
    highest = ndimage.maximum(values, parts, np.arange(count + 1))
    lost = is_area & (np.asarray(highest)[parts] <= top // 2)
    if lost.any():
        raise ValueError(
            f"has soft edges, and an area of {values[lost].max()} apart from what is white, which "
            f"may be an object or not; {REMEDY}"
        )
