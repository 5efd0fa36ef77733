"""A data set in numbered batches: which images are in which depends on nothing but the data."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
)

from xcam._evaluate.tolerant import Collated, Tolerant

__all__ = ["Batch", "Data", "Unread"]

DATASET_BATCH = 16  # images a batch where a data set comes without a loader: what a kill can cost
_TRIES = 16  # images that may be unreadable before the data set is taken to be wrong

_Groups: TypeAlias = Sequence[Sequence[int]]
_Found: TypeAlias = tuple[Any, Mapping[int, str]]
"""A batch as the data gives it, and the places in its group of images that could not be read."""


@dataclass(frozen=True)
class Unread:
    """An image that could not be read.

    Attributes:
        index: Its position in the data set.
        id: Its id.
        error: What went wrong.
    """

    index: int
    id: str
    error: str


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images that are explained and scored together.

    Attributes:
        number: Of the batch.
        indices: The position of each image in the data set.
        ids: The id of each image.
        images: (B, C, H, W).
        labels: (B,) int64, if there are any.
        truth: (B, …), what the metrics that need boxes or masks get, if there is any.
        unread: The images of the batch that could not be read; the others are all that is above.
    """

    number: int
    indices: tuple[int, ...]
    ids: tuple[str, ...]
    images: Tensor
    labels: Tensor | None
    truth: Tensor | None
    unread: tuple[Unread, ...] = ()


@dataclass(frozen=True, eq=False)
class Data:
    """The chosen images of a data set.

    Attributes:
        groups: The positions of the images of each batch.
        ids: The id of every image of the data set.
        size: How many images a full batch has; 0 where the caller made the batches.
        read: Loads the batches of some groups, as the data gives them, one after the other.
    """

    groups: tuple[tuple[int, ...], ...]
    ids: Sequence[str]
    size: int
    read: Callable[[_Groups], Iterator[_Found]]

    @classmethod
    def of(
        cls,
        loader: DataLoader[Any] | Dataset[Any] | Sequence[Any],
        indices: Iterable[int] | None,
        fraction: float,
        seed: int,
    ) -> Data:
        """Batches of a loader that does not shuffle, a data set, or a list of batches.

        Raises:
            TypeError: It is none of these.
            ValueError: It shuffles, leaves images out or is empty; a bad index or fraction.
        """
        if isinstance(loader, list | tuple):
            return _of_list(loader, indices, fraction, seed)
        if not isinstance(loader, DataLoader):
            _check_dataset(loader)
            loader = DataLoader(loader, batch_size=DATASET_BATCH)  # type: ignore[arg-type]
        _check_loader(loader)
        ids = _ids(loader.dataset)
        chosen = _choose(len(ids), indices, fraction, seed)
        size = loader.batch_size or 1
        groups = tuple(chosen[i : i + size] for i in range(0, len(chosen), size))

        def read(groups: _Groups) -> Iterator[_Found]:
            return iter(_again(loader, groups, seed))

        return cls(groups, ids, size, read)

    def __len__(self) -> int:
        """The number of images chosen."""
        return sum(map(len, self.groups))

    def load(self, numbers: Sequence[int]) -> Iterator[Batch]:
        """The batches of these numbers; nothing else is loaded."""
        groups = [self.groups[number] for number in numbers]
        for number, group, found in zip(numbers, groups, self.read(groups), strict=True):
            yield _batch(found, number, group, tuple(self.ids[index] for index in group))

    def first(self) -> Batch:
        """A batch of the first image alone that can be read.

        Raises:
            ValueError: There is none among the first ones.
        """
        indices = list(itertools.islice(itertools.chain.from_iterable(self.groups), _TRIES))
        for index in indices:
            batch = _batch(next(self.read([(index,)])), 0, (index,), (self.ids[index],))
            if not batch.unread:
                return batch
        raise ValueError(
            f"none of the first {len(indices)} images can be read; the last one, "
            f"{batch.unread[0].id!r}: {batch.unread[0].error}"
        )


def _of_list(
    batches: Sequence[Any], indices: Iterable[int] | None, fraction: float, seed: int
) -> Data:
    starts = [0, *itertools.accumulate(len(_parts(batch)[0]) for batch in batches)]
    chosen = _choose(starts[-1], indices, fraction, seed)
    homes = itertools.groupby(chosen, lambda index: bisect.bisect_right(starts, index) - 1)
    groups = tuple(tuple(group) for _, group in homes)

    def read(groups: _Groups) -> Iterator[_Found]:
        for group in groups:
            home = bisect.bisect_right(starts, group[0]) - 1
            rows = [index - starts[home] for index in group]
            yield tuple(None if p is None else p[rows] for p in _parts(batches[home])), {}

    return Data(groups, [str(index) for index in range(starts[-1])], 0, read)


def _again(loader: DataLoader[Any], groups: _Groups, seed: int) -> DataLoader[Any]:
    """The loader of other batches of its data set; it draws nothing from the global generator."""
    return DataLoader(
        Tolerant(loader.dataset),
        batch_sampler=groups,  # type: ignore[arg-type]  # any sized iterable of lists will do
        num_workers=loader.num_workers,
        collate_fn=Collated(loader.collate_fn),
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        generator=torch.Generator().manual_seed(seed),
    )


def _check_dataset(dataset: object) -> None:
    if isinstance(dataset, IterableDataset) or not (
        isinstance(dataset, Sized) and hasattr(dataset, "__getitem__")
    ):
        raise TypeError(
            "loader must be a DataLoader, a data set with a length and items by number, or a list "
            f"of (images, labels) batches, got {type(dataset).__name__}"
        )


def _check_loader(loader: DataLoader[Any]) -> None:
    _check_dataset(loader.dataset)
    if loader.batch_size is None or type(loader.batch_sampler) is not BatchSampler:
        raise ValueError(
            "the loader makes its own batches; give DataLoader(dataset, batch_size=…), or a list "
            "of batches"
        )
    if not isinstance(loader.sampler, SequentialSampler):
        raise ValueError(
            f"the loader takes its images by a {type(loader.sampler).__name__}, and an evaluation "
            "that goes on where it stopped needs them in order; give shuffle=False, and choose "
            "images with indices or fraction"
        )
    if loader.drop_last:
        raise ValueError(
            "the loader leaves images out with drop_last=True; give drop_last=False, and choose "
            "images with indices or fraction"
        )


def _ids(dataset: object) -> Sequence[str]:
    """The id of every image: what the data set says, or its position."""
    if isinstance(dataset, Subset):
        inner = _ids(dataset.dataset)
        return [inner[index] for index in dataset.indices]
    count = len(dataset)  # type: ignore[arg-type]  # checked
    ids = getattr(dataset, "ids", None)
    if ids is None:
        return [str(index) for index in range(count)]
    if len(ids) != count:
        raise ValueError(f"the data set has {count} images and {len(ids)} ids; give one an image")
    return [str(name) for name in ids]


def _choose(
    count: int, indices: Iterable[int] | None, fraction: float, seed: int
) -> tuple[int, ...]:
    """Which of `count` images, ascending; a fraction of them is drawn by the seed alone."""
    chosen = sorted(range(count) if indices is None else map(int, indices))
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


def _parts(found: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:  # noqa: ANN401
    """Images, labels and truth of a batch, as the data gives it; None for what is not there."""
    parts = tuple(found) if isinstance(found, list | tuple) else (found,)
    if not 1 <= len(parts) <= 3 or not isinstance(parts[0], Tensor):
        raise TypeError(
            "a batch must be images, (images, labels) or (images, labels, truth), images a tensor, "
            f"got {type(found).__name__} of {', '.join(type(part).__name__ for part in parts)}"
        )
    images, labels, truth = (*parts, None, None)[:3]
    for name, part in (("labels", labels), ("truth", truth)):
        if part is not None and len(part) != len(images):
            raise ValueError(f"a batch has {len(images)} images and {len(part)} {name}")
    if truth is not None and not isinstance(truth, Tensor):
        raise TypeError(
            f"truth must be a tensor of boxes (B, N, 4) or masks (B, H, W), got "
            f"{type(truth).__name__}; pad boxes with NaN"
        )
    return images, None if labels is None else _labels(labels), truth


def _labels(given: object) -> Tensor:
    labels = torch.as_tensor(given)
    if labels.ndim != 1 or labels.is_floating_point():
        raise TypeError(
            f"labels must be (B,) integers, got {tuple(labels.shape)} of {labels.dtype}"
        )
    return labels.long()


def _batch(found: _Found, number: int, indices: Sequence[int], ids: tuple[str, ...]) -> Batch:
    items, errors = found
    images, labels, truth = (torch.empty(0), None, None) if items is None else _parts(items)
    if len(images) != len(indices) - len(errors):
        raise ValueError(
            f"the data gave {len(images)} images for {len(indices) - len(errors)} indices"
        )
    read = [place for place in range(len(indices)) if place not in errors]
    return Batch(
        number,
        tuple(indices[place] for place in read),
        tuple(ids[place] for place in read),
        images,
        labels,
        truth,
        tuple(Unread(indices[place], ids[place], error) for place, error in errors.items()),
    )
