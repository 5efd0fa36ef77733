"""Properties of any map-style data set, and checks that `evaluate` and `fit` share."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    IterableDataset,
    Subset,
    TensorDataset,
)

from xcam.sentences import escape_name

__all__ = [
    "count_items",
    "is_several",
    "list_ids",
    "list_labels",
    "makes_own_batches",
    "select_indices",
]


def count_items(dataset: object, name: str, accepted: str) -> int:
    """Return the number of items, after refusing what has no length and items by number.

    Args:
        dataset: The value that the caller gave.
        name: The argument's name, for the message.
        accepted: What the argument takes, for the message.

    Raises:
        TypeError: It is no map-style data set, or holds several splits.
    """
    if all(hasattr(dataset, split) for split in ("train", "validation", "test")):
        raise TypeError(f"{name} holds several splits; give one of them, such as splits.train")
    if (
        isinstance(dataset, IterableDataset)
        or not isinstance(dataset, Sized)
        or not hasattr(dataset, "__getitem__")
    ):
        raise TypeError(f"{name} must be {accepted}, got {type(dataset).__name__}")
    return len(dataset)


def makes_own_batches(loader: DataLoader[Any]) -> bool:
    """Return whether a loader groups items by a rule of its own, not by a batch size."""
    return loader.batch_size is None or type(loader.batch_sampler) is not BatchSampler


def list_ids(dataset: object) -> Sequence[str]:
    """Return the id of every image: an entry of the data set's `ids`, or its position.

    Raises:
        ValueError: The data set has another number of ids than of images.
    """
    if isinstance(dataset, Subset):
        whole = list_ids(dataset.dataset)
        return [whole[index] for index in dataset.indices]
    count = len(dataset)  # type: ignore[arg-type]  # checked
    ids = getattr(dataset, "ids", None)
    if ids is None:
        return [str(index) for index in range(count)]
    if len(ids) != count:
        raise ValueError(f"the data set has {count} images and {len(ids)} ids; give one an image")
    return [escape_name(str(name)) for name in ids]


def list_labels(dataset: object) -> Sequence[object] | None:
    """Return the label of every image without reading it; None if the data set has no such list.

    It is `labels`, `targets`, or the second of each of `samples`, or of the tensors of a
    `TensorDataset`; as a `target_transform` changes it.
    """
    if isinstance(dataset, Subset):
        whole = list_labels(dataset.dataset)
        return None if whole is None else [whole[index] for index in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [list_labels(part) for part in dataset.datasets]
        return None if None in parts else [*itertools.chain.from_iterable(filter(None, parts))]
    count = len(dataset)  # type: ignore[arg-type]  # checked
    transform = getattr(dataset, "target_transform", None)
    for given in _list_candidates(dataset):
        values = given.tolist() if isinstance(given, Tensor | np.ndarray) else given
        if isinstance(values, Sequence) and len(values) == count:
            return list(map(transform, values)) if callable(transform) else values
    return None


def is_several(label: object) -> bool:
    """Return whether a label is one bool for each class, of an image that may show several."""
    if isinstance(label, Tensor | np.ndarray):
        return label.ndim == 1 and label.dtype in (torch.bool, np.dtype(bool))
    if not isinstance(label, list | tuple) or not label:
        return False
    return all(isinstance(one, bool) for one in label)


def _list_candidates(dataset: object) -> Iterator[object]:
    yield getattr(dataset, "labels", None)
    yield getattr(dataset, "targets", None)
    samples = getattr(dataset, "samples", None)
    if isinstance(samples, Sequence) and all(isinstance(s, tuple) and len(s) == 2 for s in samples):
        yield [label for _, label in samples]
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        yield dataset.tensors[1]


def select_indices(
    count: int, indices: Iterable[int] | None, fraction: float, seed: int
) -> tuple[int, ...]:
    """Return the positions of the images to use, ascending.

    Args:
        count: The number of images.
        indices: Positions to choose from; None for all.
        fraction: The share of them to keep, in (0, 1]; drawn by the seed alone.
        seed: The seed of the draw.

    Raises:
        TypeError: The indices are not whole numbers.
        ValueError: No images, an index out of range or given twice, or a bad fraction.
    """
    chosen = list(range(count)) if indices is None else _sort_indices(indices)
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
    return tuple(chosen[position] for position in sorted(order[:kept].tolist()))


def _sort_indices(indices: Iterable[int]) -> list[int]:
    positions = torch.as_tensor(list(indices))
    whole = not positions.is_floating_point() and positions.dtype != torch.bool
    if len(positions) and not (whole and positions.ndim == 1):
        raise TypeError(
            f"indices must be a list of whole numbers, got {tuple(positions.shape)} of "
            f"{positions.dtype}; of a mask, give mask.nonzero().flatten()"
        )
    return sorted(positions.tolist())
