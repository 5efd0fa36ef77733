"""Progressive removal of pixels in the order of a map, and the model's output at each step.

One engine serves every metric of progressive removal: each pixel has a rank, a point of the curve
is a number of pixels, and the image at that point is where(rank < number, one picture, another).
No image depends on the one before it, so that the (image, point) pairs pass in chunks of any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from xcam.core import Explanation, Output, Range
from xcam.engine import untouched
from xcam.engine.masking import masked_passes
from xcam.imaging import Fill, hash_images, is_flat
from xcam.metrics.inputs import read_maps, read_target
from xcam.metrics.reading import Read, check_changed, make_score_reader
from xcam.models.normalized import Space, enter_space

__all__ = [
    "Fractions",
    "Step",
    "Ties",
    "check_ascending",
    "compute_area",
    "count_at_fractions",
    "count_by_step",
    "draw_order",
    "level",
    "rank_values",
    "read_ordered_maps",
    "remove_progressively",
    "score_curves",
]


Step: TypeAlias = Annotated[int, Range(least=1)] | Annotated[float, Range(above=0, most=1)]
"""Pixels from one point of a curve to the next; a float is their share of all pixels."""

Fractions: TypeAlias = tuple[Annotated[float, Range(above=0, below=1)], ...]

Ties: TypeAlias = Literal["scan", "reverse", "random"]
"""How equal values of a map are ordered: row after row, from the last to the first, or at random,
anew for each image.

Of a flat map, `"scan"` takes the image from top to bottom, which a photograph's score may reward;
`"random"` makes of it what a random map is.
"""


def rank_values(maps: Tensor, order: Tensor | None = None) -> Tensor:
    """Return the rank of each value of (B, …) maps in its image, (B, …) int64; 0 is the highest.

    Args:
        maps: N values an image.
        order: (B, N) int64, a permutation of each image's values, in which equal ones follow each
            other; scan order by default.
    """
    flat = maps.flatten(1) if order is None else maps.flatten(1).gather(1, order)
    ranked = flat.argsort(dim=1, descending=True, stable=True)
    if order is not None:
        ranked = order.gather(1, ranked)
    places = torch.arange(ranked.shape[1], device=maps.device).expand_as(ranked)
    return torch.empty_like(ranked).scatter_(1, ranked, places).view(maps.shape)


def draw_order(images: Tensor, count: int, ties: Ties, seed: int) -> Tensor | None:
    """Draw the order of equal values for `rank_values`, (B, count); None for scan order.

    From the seed and a hash of the image, so that it depends on neither batch nor order; one draw
    for all images would be what their mean judges.
    """
    if ties == "scan":
        return None
    if ties == "reverse":
        return torch.arange(count - 1, -1, -1, device=images.device).expand(len(images), -1)
    generators = (torch.Generator().manual_seed(state) for state in hash_images(images, seed))
    orders = [torch.randperm(count, generator=generator) for generator in generators]
    return torch.stack(orders).to(images.device)


def read_ordered_maps(explanation: Explanation, images: Tensor, ties: Ties) -> Tensor:
    """Return the maps (B, H, W) whose pixels are to be ranked; see `read_maps`.

    In a fixed order flat ones are noted; in a random one they become exactly flat, of which
    rounding, as of a resize, would else be the order.
    """
    maps = read_maps(explanation, images, order=ties != "random")
    return level(maps) if ties == "random" else maps


def level(maps: Tensor) -> Tensor:
    """Return maps (B, …) of which those that are flat up to rounding are zeros."""
    flat = is_flat(maps.flatten(1)[:, None])
    return maps.masked_fill(flat.view(-1, *[1] * (maps.ndim - 1)), 0)


def count_by_step(step: int | float, pixels: int) -> Tensor:
    """Return how many of an image's pixels are changed at each point: (P,) int64, from 0 to all.

    Args:
        step: Pixels from point to point, the last one excepted: ceil(pixels / step) + 1 points.
            Or, as a float, their share of all pixels: ceil(1 / step) + 1 points whatever the size
            of the image, at the whole pixel below where the share is none.
        pixels: Of the image.
    """
    if isinstance(step, int | np.integer):
        return torch.tensor([*range(0, pixels, int(step)), pixels])
    return count_at_fractions([*(i * step for i in range(math.ceil(1 / step - 1e-9))), 1.0], pixels)


def count_at_fractions(fractions: Sequence[float], pixels: int) -> Tensor:
    """Return the whole number of pixels at or below each fraction of them, (P,) int64."""
    return torch.tensor([math.floor(fraction * pixels + 1e-6) for fraction in fractions])


def remove_progressively(
    model: nn.Module,
    images: Tensor,
    ranks: Tensor,
    counts: Tensor,
    read: Read,
    fill: Fill = "zero",
    insert: bool = False,
    label: str = "",
) -> Tensor:
    """Remove or insert pixels in the order of their ranks, and return what is read at each point.

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
    return check_changed(found.view(batch, points, *found.shape[1:]))


def score_curves(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation,
    step: int | float,
    output: Output,
    space: Space,
    fill: Fill | Callable[[Tensor], Tensor],
    insert: bool = False,
    label: str = "",
    ties: Ties = "scan",
    seed: int = 0,
) -> Tensor:
    """Return the curves (B, P) of the explained class's score while the highest pixels change.

    Args:
        model: The classifier; left as it was.
        images: (B, C, H, W).
        explanation: Of these images.
        step: Pixels from point to point; see `count_by_step`.
        output: What of the output is read.
        space: Where pixels are replaced.
        fill: As in `remove_progressively`, or a function that makes it of the images in `space`.
        insert: As in `remove_progressively`.
        label: For the progress bar.
        ties: How equal values are ordered.
        seed: Of a random order of them.
    """
    maps = read_ordered_maps(explanation, images, ties)
    ranks = rank_values(maps, draw_order(images, maps[0].numel(), ties, seed))
    counts = count_by_step(step, ranks[0].numel())
    read = make_score_reader(read_target(explanation, images), output)
    with untouched(model), torch.no_grad():
        net, pixels = enter_space(model, images, space)
        hidden = fill(pixels) if callable(fill) else fill
        return remove_progressively(net, pixels, ranks, counts, read, hidden, insert, label)


def compute_area(curve: Tensor) -> Tensor:
    """Return the area (…) under curves (…, P) of P ≥ 2 points, by trapezoids over a width of 1.

    (Σ s − s_0/2 − s_last/2) / (P − 1), all steps alike also if the last one is shorter.
    """
    total = curve.sum(-1) - (curve[..., 0] + curve[..., -1]) / 2
    return total / (curve.shape[-1] - 1)


def check_ascending(fractions: Sequence[float]) -> None:
    """Refuse, with a `ValueError`, fractions of pixels that do not ascend, and none at all."""
    if not fractions or list(fractions) != sorted(set(fractions)):
        raise ValueError(
            f"fractions must ascend between 0 and 1, such as (0.1, 0.5, 0.9), got {fractions!r}"
        )
