"""Pixels removed in the order of a map, and what the model makes of what is left.

One engine serves every metric of progressive removal: each pixel has a rank, a point of the curve
is a number of pixels, and the image at that point is where(rank < number, one picture, another).
No image depends on the one before it, so that the (image, point) pairs pass in chunks of any size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from xcam.core import Output
from xcam.engine.masking import masked_passes
from xcam.imaging import Fill, check_fill
from xcam.metrics.inputs import Space
from xcam.metrics.reading import Read, check_finite

__all__ = [
    "area",
    "check_fractions",
    "check_removal",
    "counts_at",
    "counts_by",
    "progressive",
    "ranks",
]


def ranks(maps: Tensor) -> Tensor:
    """The place of each value of (B, …) maps among its image's, (B, …) int64: 0 is the highest.

    Equal values follow each other in scan order.
    """
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view(maps.shape)


def counts_by(step: int | float, pixels: int) -> Tensor:
    """How many of an image's pixels are changed at each point: (P,) int64, from 0 to all.

    Args:
        step: Pixels from point to point, the last one excepted: ceil(pixels / step) + 1 points.
            Or, as a float, their share of all pixels: ceil(1 / step) + 1 points whatever the size
            of the image, at the whole pixel below where the share is none.
        pixels: Of the image.
    """
    if isinstance(step, int):
        return torch.tensor([*range(0, pixels, step), pixels])
    return counts_at([*(i * step for i in range(math.ceil(1 / step - 1e-9))), 1.0], pixels)


def counts_at(fractions: Sequence[float], pixels: int) -> Tensor:
    """The whole number of pixels at or below each fraction of them, (P,) int64."""
    return torch.tensor([math.floor(fraction * pixels + 1e-6) for fraction in fractions])


def progressive(
    model: nn.Module,
    images: Tensor,
    ranks: Tensor,
    counts: Tensor,
    read: Read,
    fill: Fill = "zero",
    insert: bool = False,
    label: str = "",
) -> Tensor:
    """What is read while pixels are removed, or inserted, in the order of their ranks.

    The model is called on (image, point) pairs, a chunk at a time; memory is flat in the number of
    points. The caller holds the model `untouched`.

    Args:
        model: The classifier.
        images: (B, C, H, W).
        ranks: (B, H, W), or (B, C, H, W) an element, int64. Pixels of one rank go together:
            patches, superpixels.
        counts: (P,), or (B, P) an image, int64: at each point the pixels of rank below it are
            changed.
        read: What is kept of the output.
        fill: What stands where pixels are removed, or not inserted yet; a tensor of the images'
            shape is each one's own.
        insert: Whether the pixels of low rank are those that are seen, not those that are hidden.
        label: For the progress bar.

    Returns:
        (B, P, …).

    Raises:
        ModelOutputError: What was read is not finite.
    """
    batch, points = len(images), counts.shape[-1]
    limits = counts.to(ranks.device).expand(batch, points).reshape(-1)
    limits = limits.view(-1, *[1] * (ranks.ndim - 1))

    def masks(part: slice) -> tuple[Tensor, Tensor]:
        rows = torch.arange(part.start, part.stop, device=ranks.device) // points
        places = ranks if batch == 1 else ranks[rows]
        return rows, places < limits[part] if insert else places >= limits[part]

    found = masked_passes(model, images, batch * points, masks, read, fill, label)
    return check_finite(found.view(batch, points, *found.shape[1:]))


def area(curve: Tensor) -> Tensor:
    """The area (…) under curves (…, P) of P ≥ 2 points, by trapezoids over a width of 1.

    (Σ s − s_0/2 − s_last/2) / (P − 1), all steps alike also if the last one is shorter.
    """
    total = curve.sum(-1) - (curve[..., 0] + curve[..., -1]) / 2
    return total / (curve.shape[-1] - 1)


def check_removal(step: int | float, output: Output, space: Space, fill: Fill | None) -> None:
    """Refuses settings by which nothing can be removed, with a `TypeError` or `ValueError`."""
    if isinstance(step, bool) or not isinstance(step, int | float):
        raise TypeError(f"step must be a number of pixels or a share of them, got {step!r}")
    if not (0 < step <= 1 if isinstance(step, float) else step >= 1):
        raise ValueError(
            "step must be an int of at least 1, in pixels, or a float above 0 and at most 1, a "
            f"share of all pixels, got {step!r}"
        )
    for name, value, choices in (("output", output, Output), ("space", space, Space)):
        if value not in get_args(choices):
            raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}")
    if fill is not None:
        check_fill(fill)


def check_fractions(fractions: Sequence[float], space: Space, fill: Fill) -> None:
    """Refuses fractions of pixels to remove that are none, with a `TypeError` or `ValueError`."""
    inside = all(isinstance(k, float) and 0 < k < 1 for k in fractions)
    if not inside or not fractions or list(fractions) != sorted(set(fractions)):
        raise ValueError(
            f"fractions must ascend between 0 and 1, such as (0.1, 0.5, 0.9), got {fractions!r}"
        )
    check_removal(1, "logit", space, fill)
