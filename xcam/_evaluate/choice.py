"""Which images of a data set an evaluation uses."""

from __future__ import annotations

from collections.abc import Iterable

import torch

__all__ = ["chosen_of"]


def chosen_of(
    count: int, indices: Iterable[int] | None, fraction: float, seed: int
) -> tuple[int, ...]:
    """Which of `count` images, ascending; a fraction of them is drawn by the seed alone."""
    chosen = list(range(count)) if indices is None else _places(indices)
    if not chosen:
        raise ValueError("there are no images to evaluate on")
    if chosen[0] < 0 or chosen[-1] >= count:
        wrong = chosen[0] if chosen[0] < 0 else chosen[-1]
        raise ValueError(f"indices must be from 0 to {count - 1}, got {wrong}")
    if len(set(chosen)) < len(chosen):
        raise ValueError("indices must name each image once; some are given twice")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, got {fraction!r}")
    kept = max(1, round(fraction * len(chosen)))
    if kept == len(chosen):
        return tuple(chosen)
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))
    return tuple(chosen[place] for place in sorted(order[:kept].tolist()))


def _places(indices: Iterable[int]) -> list[int]:
    """The positions, ascending."""
    places = torch.as_tensor(list(indices))
    wrong = places.is_floating_point() or places.dtype == torch.bool or places.ndim != 1
    if len(places) and wrong:
        raise TypeError(
            f"indices must be a list of whole numbers, got {tuple(places.shape)} of "
            f"{places.dtype}; of a mask, give mask.nonzero().flatten()"
        )
    return sorted(places.tolist())
