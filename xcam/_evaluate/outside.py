"""Explanations of maps that others made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from xcam import imaging
from xcam.core import Explanation, SavedMethod
from xcam.core.explanation import notes_on

__all__ = ["explanations_of"]


def explanations_of(
    found: object, label: str, images: Tensor, target: Tensor, logits: Tensor
) -> list[Explanation]:
    """The explanations that maps of these images would have come from, one an image.

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
    size, method = (images.shape[2], images.shape[3]), SavedMethod(label, ())
    explanations = []
    for image, raw in enumerate(_singles(found, images, label)):
        if not bool(raw.isfinite().all()):
            raise ValueError(f"{label} gave a map that is not finite")
        maps, one = imaging.resize(raw[None], size), slice(image, image + 1)
        notes = tuple(notes_on(maps))
        explanations.append(Explanation(maps, raw[None], target[one], logits[one], method, notes))
    return explanations


def _singles(found: object, images: Tensor, label: str) -> Sequence[Tensor]:
    """The map (h, w) of each image."""
    if isinstance(found, Tensor | np.ndarray):
        raw = _tensor(found, images, label)
        raw = raw.sum(1) if raw.ndim == 4 else raw
        if raw.ndim != 3 or len(raw) != len(images):
            raise ValueError(
                f"{label} must give ({len(images)}, h, w) maps, got {tuple(found.shape)}"
            )
        return raw.unbind()
    if not isinstance(found, Sequence) or len(found) != len(images):
        raise TypeError(
            f"{label} must give a tensor of {len(images)} maps, got {type(found).__name__}"
        )
    return [_tensor(one, images, label) for one in found]


def _tensor(found: object, images: Tensor, label: str) -> Tensor:
    if not isinstance(found, Tensor | np.ndarray):
        raise TypeError(f"{label} must give tensors or arrays, got {type(found).__name__}")
    return torch.as_tensor(found).detach().to(images.device, torch.float32)
