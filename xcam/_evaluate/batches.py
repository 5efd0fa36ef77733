"""A data set in numbered batches; which images are in which depends on the data alone."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from xcam._evaluate.failures import TolerantCollate, TolerantDataset
from xcam.core import is_multi_label
from xcam.data import datasets
from xcam.data.items import ending_workers
from xcam.data.joining import number_parts_alike

__all__ = ["Batch", "Batches", "Groups", "Loaded", "Unreadable", "split_batch"]

DATASET_BATCH = 16  # without a loader; a killed process loses one batch of work
_TRIES = 16  # unreadable images in a row before the data set itself is refused

Groups: TypeAlias = Sequence[Sequence[int]]
Loaded: TypeAlias = tuple[Any, Mapping[int, str]]
"""A batch as the data gives it, and the errors by their position in its group of images."""


@dataclass(frozen=True)
class Unreadable:
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
    """Images that are explained and scored together.

    Attributes:
        number: The batch's number.
        indices: The position of each image in the data set.
        ids: The id of each image.
        images: (B, C, H, W).
        labels: (B,) int64, if there are any; (B, K) bool as loaded, of images with several.
        truth: (B, …), boxes or masks for the metrics that need them, if there are any.
        unreadable: The images of the batch that could not be read; all else leaves them out.
    """

    number: int
    indices: tuple[int, ...]
    ids: tuple[str, ...]
    images: Tensor
    labels: Tensor | None
    truth: Tensor | None
    unreadable: tuple[Unreadable, ...] = ()


@dataclass(frozen=True, eq=False)
class Batches:
    """The selected images of a data set, in batches.

    Attributes:
        groups: The positions of the images of each batch.
        ids: The id of every image, by its position in the data set.
        labels: The label of every image, if the data set lists them.
        dataset: The data set, which may name the classes that its labels number.
        size: The number of images in a full batch; 0 where the caller made the batches.
        read: Loads the batches of some groups, as the data gives them, one after the other.
    """

    groups: tuple[tuple[int, ...], ...]
    ids: Sequence[str] | Mapping[int, str]
    labels: Sequence[object] | Mapping[int, object] | None
    dataset: object
    size: int
    read: Callable[[Groups], Iterator[Loaded]]

    @classmethod
    def of(
        cls,
        data: DataLoader[Any] | Dataset[Any] | Sequence[Any],
        indices: Iterable[int] | None,
        fraction: float,
        seed: int,
    ) -> Batches:
        """Group a loader that does not shuffle, a data set, or a list of batches.

        Raises:
            TypeError: It is none of these.
            ValueError: It shuffles, leaves images out or is empty; a bad index or fraction.
        """
        if isinstance(data, list | tuple):
            return _group_list(data, indices, fraction, seed)
        loader = _check_data(data)
        dataset = number_parts_alike(loader.dataset)
        ids = datasets.list_ids(dataset)
        chosen = datasets.select_indices(len(ids), indices, fraction, seed)
        size = loader.batch_size or 1
        groups = tuple(chosen[i : i + size] for i in range(0, len(chosen), size))

        def read(groups: Groups) -> Iterator[Loaded]:
            items = iter(_regroup(loader, dataset, groups, seed))
            with ending_workers(items):
                yield from items

        return cls(groups, ids, datasets.list_labels(dataset), dataset, size, read)

    def __len__(self) -> int:
        """Return the number of selected images."""
        return sum(map(len, self.groups))

    def load(self, groups: Mapping[int, Sequence[int]]) -> Generator[Batch, None, None]:
        """Yield batches of these images by the batches' numbers; nothing else is loaded."""
        loads = self.read([*groups.values()])
        for (number, group), loaded in zip(groups.items(), loads, strict=True):
            yield _make_batch(loaded, number, group, tuple(self.ids[index] for index in group))

    def load_readable(self, index: int) -> Batch | None:
        """Return an image alone in a batch; None if it cannot be read."""
        return self._load_readable([index], [])

    def load_first_and_last(self) -> tuple[Batch, Batch]:
        """Return the first and the last image that can be read, each alone in a batch.

        Raises:
            ValueError: None of the first images can be read.
        """
        indices = list(itertools.chain.from_iterable(self.groups))
        unreadable: list[Unreadable] = []
        first = self._load_readable(indices[:_TRIES], unreadable)
        if first is None:
            raise ValueError(
                f"none of the first {len(unreadable)} images can be read; the last one, "
                f"{unreadable[-1].id!r}: {unreadable[-1].error}"
            )
        return first, self._load_readable(indices[: -_TRIES - 1 : -1], unreadable) or first

    def _load_readable(self, indices: Iterable[int], unreadable: list[Unreadable]) -> Batch | None:
        """Return the first image that can be read; add those before it to `unreadable`."""
        for index in indices:
            batch = _make_batch(next(self.read([(index,)])), 0, (index,), (self.ids[index],))
            if not batch.unreadable:
                return batch
            unreadable += batch.unreadable
        return None


def _group_list(
    batches: Sequence[Any], indices: Iterable[int] | None, fraction: float, seed: int
) -> Batches:
    """Group the images of a list of batches as they are grouped there."""
    starts = [0, *itertools.accumulate(len(split_batch(batch)[0]) for batch in batches)]
    chosen = datasets.select_indices(starts[-1], indices, fraction, seed)

    def find_batch(index: int) -> int:
        return bisect.bisect_right(starts, index) - 1

    groups = tuple(tuple(group) for _, group in itertools.groupby(chosen, find_batch))

    def read(groups: Groups) -> Iterator[Loaded]:
        for group in groups:
            number = find_batch(group[0])
            rows = [index - starts[number] for index in group]
            yield tuple(None if p is None else p[rows] for p in split_batch(batches[number])), {}

    return Batches(groups, [str(index) for index in range(starts[-1])], None, batches, 0, read)


def _regroup(
    loader: DataLoader[Any], dataset: Dataset[Any], groups: Groups, seed: int
) -> DataLoader[Any]:
    """Return a loader like this one that reads the given groups and tolerates failing items."""
    return DataLoader(
        TolerantDataset(dataset),
        batch_sampler=groups,  # type: ignore[arg-type]  # any sized iterable of lists will do
        num_workers=loader.num_workers,
        collate_fn=TolerantCollate(loader.collate_fn),
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        # A loader without a generator draws its workers' seed from the global one.
        generator=torch.Generator().manual_seed(seed),
    )


def _check_data(data: object) -> DataLoader[Any]:
    """Return the loader, or one of the data set, after refusing what cannot be resumed."""
    accepted = (
        "a DataLoader, a data set with a length and items by number, or a list of (images, labels) "
        "batches"
    )
    datasets.count_items(data.dataset if isinstance(data, DataLoader) else data, "data", accepted)
    if not isinstance(data, DataLoader):
        return DataLoader(data, batch_size=DATASET_BATCH)  # type: ignore[arg-type]
    if datasets.makes_own_batches(data):
        raise ValueError(
            "the loader makes its own batches; give DataLoader(dataset, batch_size=…), or a list "
            "of batches"
        )
    if not isinstance(data.sampler, SequentialSampler):
        raise ValueError(
            f"the loader takes its images by a {type(data.sampler).__name__}, and an evaluation "
            "that resumes needs them in order; give shuffle=False, and choose images with indices "
            "or fraction"
        )
    if data.drop_last:
        raise ValueError(
            "the loader leaves images out with drop_last=True; give drop_last=False, and choose "
            "images with indices or fraction"
        )
    return data


def split_batch(batch: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:  # noqa: ANN401
    """Return images, labels and truth of a batch as the data gives it; None for what is missing."""
    parts = tuple(batch) if isinstance(batch, list | tuple) else (batch,)
    if not 1 <= len(parts) <= 3 or not isinstance(parts[0], Tensor):
        raise TypeError(
            "a batch must be images, (images, labels) or (images, labels, truth), images a tensor, "
            f"got {type(batch).__name__} of {', '.join(type(part).__name__ for part in parts)}"
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
    return images, None if labels is None else _check_labels(labels), truth


def _check_labels(given: object) -> Tensor:
    labels = torch.as_tensor(given)
    if is_multi_label(labels):
        return labels
    if labels.ndim != 1 or labels.is_floating_point():
        raise TypeError(
            "labels must be (B,) integers, or (B, K) bool of images with several, got "
            f"{tuple(labels.shape)} of {labels.dtype}"
        )
    return labels.long()


def _make_batch(loaded: Loaded, number: int, indices: Sequence[int], ids: tuple[str, ...]) -> Batch:
    items, errors = loaded
    images, labels, truth = (torch.empty(0), None, None) if items is None else split_batch(items)
    if len(images) != len(indices) - len(errors):
        raise ValueError(
            f"the data gave {len(images)} images for {len(indices) - len(errors)} indices"
        )
    readable = [position for position in range(len(indices)) if position not in errors]
    return Batch(
        number,
        tuple(indices[position] for position in readable),
        tuple(ids[position] for position in readable),
        images,
        labels,
        truth,
        tuple(Unreadable(indices[at], ids[at], error) for at, error in errors.items()),
    )
