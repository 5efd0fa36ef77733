"""Images and labels, from a data set or a loader of one, in the order that a training wants."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from xcam._fit.counters import Key, Keyed, Refused
from xcam._fit.interruption import deaf

__all__ = ["Images", "Source"]

Images: TypeAlias = DataLoader[Any] | Dataset[Any]


@dataclass(frozen=True, eq=False)
class Source:
    """A data set, and how its items are loaded.

    Attributes:
        dataset: Items `(image, label)` by number.
        batch_size: What the loader says, if one was given.
        drop_last: Whether the loader leaves the last, smaller batch out.
        options: Of the loaders that read it, such as `num_workers`.
    """

    dataset: Any
    batch_size: int | None
    drop_last: bool
    options: dict[str, Any]

    @classmethod
    def of(cls, data: Images, name: str, workers: int) -> Source:
        """What a data set, or a loader of one, holds; the order of a loader is not kept.

        Args:
            data: The data set or loader.
            name: Of the argument, for the messages.
            workers: Processes that load, where no loader says how many.

        Raises:
            TypeError: Neither of the two, or items that cannot be had by number.
            ValueError: No images, or a loader that chooses or groups them by itself.
        """
        loader = data if isinstance(data, DataLoader) else None
        dataset = data if loader is None else loader.dataset
        _check_dataset(dataset, name)
        if loader is None:
            return cls(dataset, None, False, _options(None, workers))
        _check_loader(loader, name)
        return cls(dataset, loader.batch_size, loader.drop_last, _options(loader, workers))

    def __len__(self) -> int:
        """The number of images."""
        return len(self.dataset)

    def batches(
        self, groups: Iterable[list[Key]], seed: int, pinned: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The images (B, C, H, W) and labels (B,) int64 of each group of keys.

        Args:
            groups: Of images that are read together.
            seed: Of what reading them draws.
            pinned: Have them where a GPU can fetch them by itself.
        """
        loader = DataLoader(
            Keyed(self.dataset, seed),
            batch_sampler=groups,  # any iterable of lists will do
            generator=torch.Generator().manual_seed(seed),  # of the workers, else the global one
            **self.options | ({"pin_memory": True} if pinned else {}),
        )
        with deaf() if loader.num_workers else nullcontext():
            items = iter(loader)  # starts the workers
        return map(_batch, items)

    def first(self, seed: int) -> tuple[Tensor, Tensor]:
        """A batch of the first image alone, read here."""
        item = Keyed(self.dataset, seed)[-1, 0]
        return _batch(self.options["collate_fn"]([item]))


def _options(loader: DataLoader[Any] | None, workers: int) -> dict[str, Any]:
    """The arguments of a loader that change how images are read, not which."""
    if loader is None:
        return {
            "num_workers": workers,
            "collate_fn": _Collate(default_collate),
            "worker_init_fn": _Deaf(None),
        }
    count = loader.num_workers or workers
    return {
        "num_workers": count,
        "collate_fn": _Collate(loader.collate_fn),
        "pin_memory": loader.pin_memory,
        "timeout": loader.timeout,
        "worker_init_fn": _Deaf(loader.worker_init_fn),
        "multiprocessing_context": loader.multiprocessing_context if count else None,
        "prefetch_factor": loader.prefetch_factor if count else None,
    }


@dataclass(frozen=True)
class _Deaf:
    """Starts a worker that Ctrl-C does not stop: the training does, after its step.

    Most are deaf from their start, see `deaf`, but not those of a fork server that ran before.
    """

    then: Callable[[int], None] | None

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self.then is not None:
            self.then(worker)


@dataclass(frozen=True)
class _Collate:
    """A batch of items, or why there is none."""

    then: Callable[[list[Any]], Any]

    def __call__(self, items: list[Any]) -> Any:  # noqa: ANN401 - whatever the data gives
        for item in items:
            if isinstance(item, Refused):
                return item
        try:
            return self.then(items)
        except RuntimeError as error:
            if "equal size" not in str(error):
                raise
            return Refused(
                "the images of a batch are not of one size; have the data set's transform crop or "
                f"resize them ({error})"
            )


def _check_dataset(dataset: object, name: str) -> None:
    splits = [part for part in ("train", "validation", "test") if hasattr(dataset, part)]
    if len(splits) == 3:
        raise TypeError(f"{name} holds several splits; give one of them, such as splits.train")
    if isinstance(dataset, IterableDataset) or not (
        isinstance(dataset, Sized) and hasattr(dataset, "__getitem__")
    ):
        raise TypeError(
            f"{name} must be a data set with a length and items by number, or a DataLoader of one, "
            f"got {type(dataset).__name__}"
        )
    if len(dataset) == 0:
        raise ValueError(f"{name} holds no images")


def _check_loader(loader: DataLoader[Any], name: str) -> None:
    sampler: object = loader.sampler
    own = loader.batch_size is None or type(loader.batch_sampler) is not BatchSampler
    plain = isinstance(sampler, SequentialSampler) or (
        type(sampler) is RandomSampler
        and not sampler.replacement
        and sampler.num_samples == len(sampler.data_source)
    )
    if own or not plain:
        kind = type(loader.batch_sampler if own else sampler).__name__
        raise ValueError(
            f"{name} takes its images by a {kind}, and a training that goes on where it stopped "
            "draws their order from its seed; give DataLoader(dataset, batch_size=…), and choose "
            "images with a torch.utils.data.Subset"
        )


def _batch(found: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - whatever the data gives
    if isinstance(found, Refused):
        raise ValueError(found.sentence)
    parts = list(found) if isinstance(found, list | tuple) else [found]
    images = parts[0] if parts else None
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        got = type(images).__name__
        if isinstance(images, Tensor):
            got = f"a batch {tuple(images.shape)} of {images.dtype}"
        raise TypeError(
            "an item must be (image, label), the image a (C, H, W) tensor of floats in [0, 1], "
            f"got {got}; have the data set's transform make one"
        )
    if len(parts) < 2:
        raise TypeError("an item must be (image, label), got an image alone; training needs labels")
    return images, _labels(parts[1], len(images))


def _labels(given: object, count: int) -> Tensor:
    try:
        labels = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"labels must be integers, got {type(given).__name__}") from error
    if labels.shape != (count,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(
            f"labels must be one integer an image, got {tuple(labels.shape)} of {labels.dtype} "
            f"for {count} images"
        )
    return labels.long()
