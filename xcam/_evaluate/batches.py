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
)

from xcam._evaluate.choice import chosen_of
from xcam._evaluate.listed import classes_of, ids_of, labels_of
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
        labels: The label of every image, if the data set lists them.
        classes: What the labels number, if that is known.
        size: How many images a full batch has; 0 where the caller made the batches.
        read: Loads the batches of some groups, as the data gives them, one after the other.
    """

    groups: tuple[tuple[int, ...], ...]
    ids: Sequence[str]
    labels: Sequence[object] | None
    classes: Sequence[str]
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
        ids = ids_of(loader.dataset)
        chosen = chosen_of(len(ids), indices, fraction, seed)
        size = loader.batch_size or 1
        groups = tuple(chosen[i : i + size] for i in range(0, len(chosen), size))

        def read(groups: _Groups) -> Iterator[_Found]:
            return iter(_again(loader, groups, seed))

        known = loader.dataset
        return cls(groups, ids, labels_of(known), classes_of(known), size, read)

    def __len__(self) -> int:
        """The number of images chosen."""
        return sum(map(len, self.groups))

    def load(self, numbers: Sequence[int]) -> Iterator[Batch]:
        """The batches of these numbers; nothing else is loaded."""
        groups = [self.groups[number] for number in numbers]
        for number, group, found in zip(numbers, groups, self.read(groups), strict=True):
            yield _batch(found, number, group, tuple(self.ids[index] for index in group))

    def said(self, index: int) -> str:
        """What the data set says of an image without reading it."""
        label = "" if self.labels is None else self.labels[index]
        return f"{index} {self.ids[index]} {label}"

    def ends(self) -> tuple[Batch, Batch]:
        """The first and the last image that can be read, each alone in a batch.

        Raises:
            ValueError: There is none among the first ones.
        """
        indices = list(itertools.chain.from_iterable(self.groups))
        unread: list[Unread] = []
        first = self._readable(indices[:_TRIES], unread)
        if first is None:
            raise ValueError(
                f"none of the first {len(unread)} images can be read; the last one, "
                f"{unread[-1].id!r}: {unread[-1].error}"
            )
        return first, self._readable(indices[: -_TRIES - 1 : -1], unread) or first

    def _readable(self, indices: Iterable[int], unread: list[Unread]) -> Batch | None:
        """The first of some images that can be read; those that cannot are added to `unread`."""
        for index in indices:
            batch = _batch(next(self.read([(index,)])), 0, (index,), (self.ids[index],))
            if not batch.unread:
                return batch
            unread += batch.unread
        return None


def _of_list(
    batches: Sequence[Any], indices: Iterable[int] | None, fraction: float, seed: int
) -> Data:
    starts = [0, *itertools.accumulate(len(_parts(batch)[0]) for batch in batches)]
    chosen = chosen_of(starts[-1], indices, fraction, seed)
    homes = itertools.groupby(chosen, lambda index: bisect.bisect_right(starts, index) - 1)
    groups = tuple(tuple(group) for _, group in homes)

    def read(groups: _Groups) -> Iterator[_Found]:
        for group in groups:
            home = bisect.bisect_right(starts, group[0]) - 1
            rows = [index - starts[home] for index in group]
            yield tuple(None if p is None else p[rows] for p in _parts(batches[home])), {}

    return Data(groups, [str(index) for index in range(starts[-1])], None, (), 0, read)


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
            "data must be a DataLoader, a data set with a length and items by number, or a list "
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
