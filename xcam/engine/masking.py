"""What a model makes of masked images: many (image, mask) pairs, a few at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from xcam.core import Output, Target
from xcam.engine import forward
from xcam.imaging import Fill, make_fill

__all__ = ["blend", "masked_passes", "masked_scores"]


def blend(images: Tensor, masks: Tensor, fill: Fill = "zero") -> Tensor:
    """Images (R, C, H, W) seen through masks (R, H, W) in [0, 1]: x ⊙ M + fill ⊙ (1 − M).

    Masks (R, C, H, W) hide element by element. A `fill` of the images' own shape is what stands
    behind each of them.
    """
    return _blend(images, masks, _make_background(images, fill))


def _make_background(images: Tensor, fill: Fill) -> Tensor | None:
    """What is seen where a mask is zero; None for zeros, which cost one operation less."""
    if isinstance(fill, Tensor) and fill.shape == images.shape:
        return fill
    return None if isinstance(fill, str) and fill == "zero" else make_fill(images, fill)


def _blend(images: Tensor, masks: Tensor, behind: Tensor | None) -> Tensor:
    masks = (masks if masks.ndim == 4 else masks[:, None]).to(images.dtype)
    return images * masks if behind is None else torch.lerp(behind, images, masks)


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
    """What is read off the output for many pairs of image and mask, without a graph.

    Args:
        model: The classifier.
        images: (B, C, H, W).
        pairs: How many pairs there are.
        masks: Makes a slice of the pairs: which image each is of, (R,) int64, and the masks
            (R, H, W) in [0, 1], or (1, H, W) if they share one. Called for a few at a time, so
            that the memory does not grow with their number.
        read: From the output for R pairs, and which image each is of, (R,) int64, to (R, …).
        fill: What is seen where the mask is zero; a tensor of the images' shape is each one's own.
        label: For the progress bar.
        group_size: How many pairs in a row share a chunk.

    Returns:
        (pairs, …).
    """
    # In the layout that the model takes, once, so that each pair is made in it.
    images = forward.match_layout(images)
    behind = _make_background(images, fill)

    def step(part: slice) -> Tensor:
        rows, seen = masks(part)
        only = len(images) == 1
        chunk = images if only else images[rows]
        hidden = behind if only or behind is None else behind[rows]
        return read(forward.call(model, _blend(chunk, seen, hidden), may_overwrite=True), rows)

    with torch.no_grad():
        return forward.collect(pairs, step, images, label, group_size)


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
    """The scores (pairs,) of many pairs of image and mask; see `masked_passes`.

    Args:
        model: The classifier.
        images: (B, C, H, W).
        target: Bound.
        pairs: How many pairs there are.
        masks: Makes a slice of the pairs.
        output: What of the output is read.
        fill: What is seen where the mask is zero.
        label: For the progress bar.
    """

    def read(prediction: object, rows: Tensor) -> Tensor:
        return target.scores(prediction, rows, output=output)

    return masked_passes(model, images, pairs, masks, read, fill, label)
