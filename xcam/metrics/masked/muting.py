"""Masks from maps: normalized to [0, 1], the lowest part muted, soft or binary."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

import torch
from torch import Tensor

from xcam import imaging
from xcam.core import Explanation, Range
from xcam.engine.forward import note
from xcam.engine.shared import shareable
from xcam.imaging import is_flat, resize
from xcam.metrics.inputs import read_maps

__all__ = ["MaskNormalization", "Muted", "make_masks", "mute"]

Muted: TypeAlias = Annotated[float, Range(least=0, below=1)]
"""What fraction of the pixels is hidden wholly, the lowest of the map."""

MaskNormalization: TypeAlias = Literal["before_resize", "after_resize"] | None
"""When a map is min-maxed: at its own size, as L-CAM does, or at the image's; None for never."""


def make_masks(
    explanation: Explanation,
    images: Tensor,
    normalize: MaskNormalization = "before_resize",
    muted: float = 0.0,
    binary: bool = False,
) -> Tensor:
    """Return the maps of an explanation as masks of its images.

    Args:
        explanation: Of these images.
        images: (B, C, H, W).
        normalize: When each map is min-maxed. A flat map becomes zeros, and is noted.
        muted: What fraction of the pixels is set to zero, the lowest first; see `mute`.
        binary: Whether whatever is left of a map becomes 1.

    Returns:
        (B, H, W) in [0, 1].

    Raises:
        ValueError: The maps do not fit the images, or leave [0, 1] and are not to be normalized.
    """
    maps = read_maps(explanation, images)
    return _make_masks(explanation, maps, normalize, muted, binary)


@shareable
def _make_masks(
    explanation: Explanation, maps: Tensor, normalize: MaskNormalization, muted: float, binary: bool
) -> Tensor:
    """Return the masks of an explanation, whose maps (B, H, W) are on the images' device."""
    masks, flat = maps, is_flat(maps)
    if normalize is None:
        flat = torch.zeros_like(flat)
    if normalize == "before_resize":
        low = explanation.reduced.to(maps.device)
        masks = resize(imaging.normalize(low), (maps.shape[1], maps.shape[2]))
    elif normalize == "after_resize":
        masks = imaging.normalize(maps)
    _check(masks, flat)
    masks = mute(masks, muted)
    return (masks > 0).to(masks.dtype) if binary else masks


def _check(masks: Tensor, flat: Tensor) -> None:
    """Refuse masks that leave [0, 1], and note those of flat maps, with one read by the host."""
    lowest, highest = masks.flatten(1).aminmax(dim=1)
    fits = (lowest >= -1e-6) & (highest <= 1 + 1e-6)  # up to the rounding of a resize
    all_fit, are_flat = torch.stack([fits, flat]).tolist()
    for image, hides_everything in enumerate(are_flat):
        if hides_everything:
            note(f"image {image}: the map is flat, as a mask it hides everything")
    if not all(all_fit):
        image = all_fit.index(False)
        raise ValueError(
            f"as a mask, a map must lie in [0, 1], got {float(lowest[image]):.4g} to "
            f"{float(highest[image]):.4g} for image {image}; set normalize='after_resize'"
        )


def mute(maps: Tensor, fraction: float) -> Tensor:
    """Set a fraction q of each map (B, H, W) to zero, the lowest values first, as L-CAM does.

    With n = H·W values: those below the ⌊q·n⌋-th smallest become 0; then, while more than
    ⌈(1 − q)·n⌉ are positive, those equal to it, row after row. What is left keeps its value. Of
    224×224 pixels, 0.5 leaves 25,088 and 0.85 leaves 7,527.
    """
    flat = maps.flatten(1)
    count = flat.shape[1]
    rank = int(fraction * count)
    if rank == 0:
        return maps
    threshold = flat.kthvalue(rank, dim=1, keepdim=True).values
    left = flat.masked_fill(flat < threshold, 0)
    surplus = (left > 0).sum(1, keepdim=True) - math.ceil((1 - fraction) * count)
    tied = flat == threshold
    return left.masked_fill(tied & (tied.cumsum(1) <= surplus), 0).view_as(maps)
