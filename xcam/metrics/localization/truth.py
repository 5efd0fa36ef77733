"""Ground truth of localization: boxes and masks, checked and converted to each other.

Boxes are (B, N, 4) floating point: x0, y0, x1, y1 in pixels of the images, x1 and y1 exclusive,
with rows of NaN where an image has fewer than N; (B, 4) is a box an image. Masks are (B, H, W)
bool, or uint8 with 1 on the object, 0 on the background, 255 where pixels are to be ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

__all__ = ["IGNORED", "find_boxes", "find_objects", "ignore_in_boxes", "pad_boxes"]

IGNORED = 255
"""What a uint8 mask holds where a pixel is neither object nor background."""


def find_objects(truth: Tensor | None, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return which pixels belong to the object, and which are to be ignored.

    A pixel belongs to a box if its center does.

    Args:
        truth: Boxes or masks of the images.
        images: (B, C, H, W).

    Returns:
        (B, H, W) bool, object; (B, H, W) bool, ignored. Every image has an object pixel.

    Raises:
        TypeError: Neither boxes nor masks.
        ValueError: They do not fit the images, or an image has no object.
    """
    truth = _tensor(truth, images)
    if truth.is_floating_point():
        objects = _inside(_boxes(truth, images), images)
        ignored = torch.zeros_like(objects)
    else:
        masks = _masks(truth, images)
        objects, ignored = masks == 1, masks == IGNORED
    empty = ~objects.flatten(1).any(1)
    if bool(empty.any()):
        raise ValueError(
            f"image {_first(empty)} has no object pixel: leave the image out, or mark the object "
            "with 1 (True) in a mask, with a box around at least one pixel's center otherwise"
        )
    return objects, ignored


def find_boxes(truth: Tensor | None, images: Tensor) -> Tensor:
    """Return the boxes of the objects; of a mask, the smallest box around its object pixels.

    Args:
        truth: Boxes or masks of the images.
        images: (B, C, H, W).

    Returns:
        (B, N, 4), rows of NaN where an image has fewer than N.

    Raises:
        TypeError: Neither boxes nor masks.
        ValueError: They do not fit the images, or an image has no object.
    """
    truth = _tensor(truth, images)
    if truth.is_floating_point():
        return _boxes(truth, images)
    objects, _ = find_objects(truth, images)
    x0, x1 = _extent(objects.any(1))
    y0, y1 = _extent(objects.any(2))
    return torch.stack([x0, y0, x1, y1], 1)[:, None].float()


def pad_boxes(boxes: Sequence[Tensor | Sequence[Sequence[float]]]) -> Tensor:
    """Join the boxes of each image, (n, 4) with any n ≥ 1, to (B, N, 4), padded with NaN.

    >>> pad_boxes([[[0, 0, 4, 4], [2, 1, 3, 3]], [[1, 1, 2, 2]]]).shape
    torch.Size([2, 2, 4])

    Raises:
        ValueError: No images, or boxes that are not (n, 4).
    """
    if not boxes:
        raise ValueError("pad_boxes needs the boxes of at least one image, got none")
    each = [torch.as_tensor(values, dtype=torch.float32) for values in boxes]
    for image, values in enumerate(each):
        if values.ndim != 2 or values.shape[1] != 4 or not len(values):
            raise ValueError(
                f"the boxes of image {image} must be (n, 4), n ≥ 1, got {tuple(values.shape)}"
            )
    return torch.nn.utils.rnn.pad_sequence(each, batch_first=True, padding_value=torch.nan)


def ignore_in_boxes(masks: Tensor, boxes: Tensor) -> Tensor:
    """Mark the background inside boxes as ignored, and return masks (B, H, W) uint8.

    Args:
        masks: (B, H, W) bool or uint8.
        boxes: (B, N, 4) or (B, 4) around what is to be ignored; all NaN for an image with nothing.

    Raises:
        TypeError: Masks that are neither bool nor uint8, or boxes that are not floating point.
        ValueError: Masks with other values, or boxes that do not fit them.
    """
    images = masks[:, None]
    checked = _masks(_tensor(masks, images), images)
    inside = _inside(_boxes(_tensor(boxes, images), images, least=0), images)
    return checked.masked_fill(inside & (checked == 0), IGNORED)


def _tensor(truth: object, images: Tensor) -> Tensor:
    """Return the truth on the images' device, or raise if it is neither boxes nor masks."""
    kinds = "boxes (B, N, 4) in floating point, or masks (B, H, W) in bool or uint8"
    if not isinstance(truth, Tensor):
        got = "none" if truth is None else type(truth).__name__
        raise TypeError(f"truth must be a tensor of {kinds}, got {got}")
    if not truth.is_floating_point() and truth.dtype not in (torch.bool, torch.uint8):
        raise TypeError(
            f"truth must be {kinds}, got {truth.dtype} of shape {tuple(truth.shape)}; class "
            "labels do not say where the object is"
        )
    return truth.to(images.device)


def _masks(truth: Tensor, images: Tensor) -> Tensor:
    """Return masks as uint8, or raise if they do not fit the images."""
    wanted = (len(images), *images.shape[2:])
    if truth.shape != wanted:
        raise ValueError(
            f"masks must be {wanted} for images of shape {tuple(images.shape)}, got "
            f"{tuple(truth.shape)}"
        )
    masks = truth.to(torch.uint8)
    wrong = (masks > 1) & (masks != IGNORED)
    if bool(wrong.any()):
        raise ValueError(
            f"the mask of image {_first(wrong.flatten(1).any(1))} holds {int(masks[wrong][0])}; a "
            f"mask is 1 on the object, 0 on the background, {IGNORED} where pixels are ignored"
        )
    return masks


def _boxes(truth: Tensor, images: Tensor, least: int = 1) -> Tensor:
    """Return boxes as (B, N, 4), or raise if they do not fit, or an image has too few."""
    boxes = truth[:, None] if truth.ndim == 2 else truth
    if boxes.ndim != 3 or boxes.shape[::2] != (len(images), 4):
        raise ValueError(
            f"boxes must be ({len(images)}, N, 4) or ({len(images)}, 4) for {len(images)} images, "
            f"got {tuple(truth.shape)}; masks are bool or uint8"
        )
    missing = boxes.isnan()
    padding = missing.all(2)
    partly = missing.any(2) & ~padding
    lacking = padding.all(1, keepdim=True) & bool(least)
    x0, y0, x1, y1 = boxes.unbind(2)
    height, width = images.shape[2:]
    empty = (x1 <= x0) | (y1 <= y0)
    outside = (x0 < 0) | (y0 < 0) | (x1 > width) | (y1 > height)
    causes = (partly, lacking, empty, outside)
    # One read of all: the host waits for a GPU at each.
    if any(torch.stack([cause.any() for cause in causes]).tolist()):
        _refuse_boxes(boxes, images, *causes)
    return boxes


def _refuse_boxes(
    boxes: Tensor, images: Tensor, partly: Tensor, lacking: Tensor, empty: Tensor, outside: Tensor
) -> NoReturn:
    """Raise for the first wrong box of (B, N, 4), by the first of the causes (B, N) that is any."""
    if bool(partly.any()):
        raise ValueError(_about_box("is partly NaN: give four corners, or NaN for no box", partly))
    if bool(lacking.any()):
        raise ValueError(
            f"image {_first(lacking[:, 0])} has no box, all are NaN: leave the image out"
        )
    if bool(empty.any()):
        corners = _corners(boxes, empty)
        raise ValueError(
            _about_box(f"is {corners}: x0, y0, x1, y1 with x0 < x1, y0 < y1 is wanted", empty)
        )
    corners, (height, width) = _corners(boxes, outside), images.shape[2:]
    raise ValueError(
        _about_box(
            f"is {corners}, outside of the {width} × {height} pixels (width × height): scale "
            "boxes as the images were, or clip them",
            outside,
        )
    )


def _inside(boxes: Tensor, images: Tensor) -> Tensor:
    """Return the pixels (B, H, W) whose center lies in a box of (B, N, 4); NaN boxes hold none."""
    x0, y0, x1, y1 = boxes[..., None].unbind(2)

    def centers(count: int) -> Tensor:
        return torch.arange(count, device=boxes.device, dtype=boxes.dtype) + 0.5

    height, width = images.shape[2:]
    rows = (y0 <= centers(height)) & (centers(height) < y1)  # (B, N, H)
    columns = (x0 <= centers(width)) & (centers(width) < x1)
    return torch.einsum("bnh,bnw->bhw", rows.float(), columns.float()) > 0


def _extent(lines: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first True of each row of (B, L), and one past the last."""
    marks = lines.to(torch.uint8)
    return marks.argmax(1), lines.shape[1] - marks.flip(1).argmax(1)


def _first(images: Tensor) -> int:
    return int(images.nonzero()[0])


def _about_box(complaint: str, wrong: Tensor) -> str:
    """Return a sentence on the first wrong box of (B, N)."""
    image, box = wrong.nonzero()[0].tolist()
    return f"box {box} of image {image} {complaint}"


def _corners(boxes: Tensor, wrong: Tensor) -> str:
    return "(" + ", ".join(f"{value:g}" for value in boxes[wrong][0].tolist()) + ")"
