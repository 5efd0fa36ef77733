"""Running a model on masked images: many (image, mask) pairs, some at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from xcam.core import Output, Target
from xcam.engine import forward
from xcam.engine.chunks import collect
from xcam.imaging import Fill, make_fill

__all__ = ["blend", "masked_passes", "masked_scores"]


def blend(images: Tensor, masks: Tensor, fill: Fill = "zero") -> Tensor:
    """Mask images (R, C, H, W) by masks (R, H, W) in [0, 1]: x ⊙ M + fill ⊙ (1 − M).

    Masks may also be (R, C, H, W), a value for each element. A `fill` of the images' shape is the
    background of each image.
    """
    return _blend(images, masks, _make_background(images, fill))


def _make_background(images: Tensor, fill: Fill) -> Tensor | None:
    """Return what shows where a mask is zero; None for zeros, which cost one operation less."""
    if isinstance(fill, Tensor) and fill.shape == images.shape:
        return fill
    return None if isinstance(fill, str) and fill == "zero" else make_fill(images, fill)


def _blend(images: Tensor, masks: Tensor, background: Tensor | None) -> Tensor:
    masks = (masks if masks.ndim == 4 else masks[:, None]).to(images.dtype)
    return images * masks if background is None else torch.lerp(background, images, masks)


def masked_passes(
    model: nn.Module,
    images: Tensor,
    pairs: int,
    masks: Callable[[slice], tuple[Tensor, Tensor]],
    read: Callable[[object, Tensor], Tensor],
    fill: Fill = "zero",
    label: str = "",
    group_size: int = 1,
) -> Tensor:
    """Run a model on many pairs of image and mask, and read a value of each, without a graph.

    Args:
        model: The classifier.
        images: (B, C, H, W).
        pairs: How many pairs there are.
        masks: Makes a slice of the pairs: the index of each pair's image, (R,) int64, and the masks
            (R, H, W) in [0, 1], or (1, H, W) if they share one. Called for some pairs at a time, so
            that the memory does not grow with their number.
        read: From the output for R pairs, and the indices of their images, (R,) int64, to (R, …).
        fill: What shows where the mask is zero; a tensor of the images' shape is one background
            for each image.
        label: For the progress bar.
        group_size: How many consecutive pairs always share a chunk.

    Returns:
        (pairs, …).
    """
    # Converted to the model's layout once, so that the masked images come out in it.
    images = forward.match_layout(images)
    background = _make_background(images, fill)

    def step(part: slice) -> Tensor:
        rows, chunk_masks = masks(part)
        if len(images) == 1:  # broadcast instead of copying
            masked = _blend(images, chunk_masks, background)
        else:
            behind = None if background is None else background[rows]
            masked = _blend(images[rows], chunk_masks, behind)
        return read(forward.call(model, masked, may_overwrite=True), rows)

    with torch.no_grad():
        return collect(pairs, step, images, label, group_size)


def masked_scores(
    model: nn.Module,
    images: Tensor,
    target: Target,
    pairs: int,
    masks: Callable[[slice], tuple[Tensor, Tensor]],
    output: Output,
    fill: Fill = "zero",
    label: str = "",
) -> Tensor:
    """Return the scores (pairs,) of many pairs of image and mask; see `masked_passes`.

    Args:
        model: The classifier.
        images: (B, C, H, W).
        target: Bound.
        pairs: How many pairs there are.
        masks: Makes a slice of the pairs.
        output: Which reading of the model is scored.
        fill: What shows where the mask is zero.
        label: For the progress bar.
    """

    def read(prediction: object, rows: Tensor) -> Tensor:
        return target.scores(prediction, rows, output=output)

    return masked_passes(model, images, pairs, masks, read, fill, label)
