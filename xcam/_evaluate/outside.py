"""Explanations of maps that others made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from xcam import imaging
from xcam.core import Explanation, SavedMethod
from xcam.core.explanation import notes_on

__all__ = ["explanation_of"]


def explanation_of(
    found: object, label: str, images: Tensor, target: Tensor, logits: Tensor
) -> Explanation:
    """The explanation that maps of these images would have come from.

    Args:
        found: (B, h, w), or (B, C, h, w) whose channels are summed, a tensor or an array; or B
            maps (h, w) of any resolution.
        label: Of whoever made them.
        images: (B, C, H, W).
        target: (B,) int64, what they are of.
        logits: (B, K) of the images.

    Raises:
        TypeError: They are nothing of this.
        ValueError: Not a map an image, or values that are not finite.
    """
    size = (images.shape[2], images.shape[3])
    if isinstance(found, Tensor | np.ndarray):
        raw = _tensor(found, images, label)
        raw = raw.sum(1) if raw.ndim == 4 else raw
        if raw.ndim != 3 or len(raw) != len(images):
            raise ValueError(
                f"{label} must give ({len(images)}, h, w) maps, got {tuple(found.shape)}"
            )
        maps = imaging.resize(raw, size)
    elif isinstance(found, Sequence) and len(found) == len(images):
        singles = [_tensor(one, images, label)[None] for one in found]
        maps = torch.cat([imaging.resize(one, size) for one in singles])
        raw = torch.cat(singles) if len({one.shape for one in singles}) == 1 else maps
    else:
        raise TypeError(
            f"{label} must give a tensor of {len(images)} maps, got {type(found).__name__}"
        )
    finite = maps.flatten(1).isfinite().all(1)
    if not bool(finite.all()):
        raise ValueError(f"{label} gave a map that is not finite")
    return Explanation(maps, raw, target, logits, SavedMethod(label, ()), tuple(notes_on(maps)))


def _tensor(found: object, images: Tensor, label: str) -> Tensor:
    if not isinstance(found, Tensor | np.ndarray):
        raise TypeError(f"{label} must give tensors or arrays, got {type(found).__name__}")
    return torch.as_tensor(found).detach().to(images.device, torch.float32)
