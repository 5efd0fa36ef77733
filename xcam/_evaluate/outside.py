"""Explanations with maps that others made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from xcam.core import Explanation

__all__ = ["explain_each"]


def explain_each(
    maps: object, label: str, images: Tensor, target: Tensor, logits: Tensor
) -> list[Explanation]:
    """Return an explanation for each image, since maps from elsewhere may differ in resolution.

    Args:
        maps: (B, h, w) or (B, C, h, w), a tensor or an array; or B maps (h, w) or (C, h, w) of any
            resolution.
        label: The name of whoever made them.
        images: (B, C, H, W).
        target: (B,) int64, the class that each map explains.
        logits: (B, K) of the images.

    Raises:
        TypeError: The maps are none of these.
        ValueError: There is not one finite map for each image.
    """
    if not isinstance(maps, Tensor | np.ndarray):
        if not isinstance(maps, Sequence) or len(maps) != len(images) or isinstance(maps, str):
            raise TypeError(
                f"{label} must give a tensor of {len(images)} maps, got {type(maps).__name__}"
            )
        found = [_add_axis(one, label) for one in maps]
    elif maps.ndim not in (3, 4) or len(maps) != len(images):
        raise ValueError(f"{label} must give ({len(images)}, h, w) maps, got {tuple(maps.shape)}")
    else:
        found = [maps[row : row + 1] for row in range(len(maps))]
    rows = [slice(row, row + 1) for row in range(len(images))]
    return [
        Explanation.of(one, images[row], target[row], logits[row], label)
        for one, row in zip(found, rows, strict=True)
    ]


def _add_axis(single: object, label: str) -> Tensor | np.ndarray[tuple[int, ...], np.dtype]:
    if not isinstance(single, Tensor | np.ndarray):
        raise TypeError(f"{label} must give tensors or arrays, got {type(single).__name__}")
    return single[None]
