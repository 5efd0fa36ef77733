"""Images and labels, from a data set or a loader of one, in the order that a training wants."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import resource_tracker
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from xcam._fit.items import SeededDataset, check_classes
from xcam._fit.order import Key
from xcam.core import is_multi_label
from xcam.data import datasets
from xcam.data.categories import Numbering, list_categories, number_classes
from xcam.data.items import append_path, collate_items, ending_workers
from xcam.data.joining import number_parts_alike
from xcam.runs import manifest

__all__ = ["Images", "Source", "block_sigint", "check_loader"]

Images: TypeAlias = DataLoader[Any] | Dataset[Any]
Loaded: TypeAlias = Generator[tuple[Tensor, Tensor], None, None]


@dataclass(frozen=True, eq=False)
class Source:
    """A data set, and how its items are loaded.

    Attributes:
        dataset: Items `(image, label)` by number.
        batch_size: What the loader says, if one was given.
        drop_last: Whether the loader leaves the last, smaller batch out.
        options: Of the loaders that read it, such as `num_workers`.
        name: Of the argument, for messages.
        categories: The names of the classes that the labels number; empty if unknown.
        numbering: From the data set's labels to those, where they differ.
        num_classes: The number of the model's classes, if it is known by now.
        has_several: Whether an image has several labels, (K,) bool; None if it is not known yet.
    """

    dataset: Any
    batch_size: int | None
    drop_last: bool
    options: dict[str, Any]
    name: str
    categories: tuple[str, ...] = ()
    numbering: Numbering | None = None
    num_classes: int | None = None
    has_several: bool | None = None

    @classmethod
    def wrap(cls, data: Images, name: str, workers: int) -> Source:
        """Wrap a data set, or that of a loader; the order of a loader is not kept.

        Args:
            data: The data set or loader.
            name: Of the argument, for the messages.
            workers: Processes that load, where no loader says how many.

        Raises:
            TypeError: Neither of the two, or items that cannot be had by number.
            ValueError: No images, or a loader that chooses or groups them by itself.
        """
        loader = data if isinstance(data, DataLoader) else None
        dataset = number_parts_alike(data if loader is None else loader.dataset)
        accepted = "a data set with a length and items by number, or a DataLoader of one"
        if datasets.count_items(dataset, name, accepted) == 0:
            raise ValueError(f"{name} holds no images")
        if loader is None:
            return cls(dataset, None, False, _choose_options(None, workers), name)
        check_loader(loader, name)
        options = _choose_options(loader, workers)
        return cls(dataset, loader.batch_size, loader.drop_last, options, name)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.dataset)

    def load(self, batches: Iterable[list[Key]], seed: int, pin_memory: bool = False) -> Loaded:
        """Load the images (B, C, H, W) and labels, (B,) int64 or (B, K) bool, of each batch.

        Close what it returns where it may not be read to its end: that ends the workers.

        Args:
            batches: Keys of the images that are loaded together.
            seed: Of what loading them draws.
            pin_memory: Have them where a GPU can fetch them by itself.
        """
        loader = DataLoader(
            self._seed_items(seed),
            batch_sampler=batches,  # any iterable of lists will do
            generator=torch.Generator().manual_seed(seed),  # of the workers, else the global one
            **self.options | ({"pin_memory": True} if pin_memory else {}),
        )
        with block_sigint() if loader.num_workers else nullcontext():
            items = iter(loader)  # starts the workers
        return self._read_batches(items)

    def _read_batches(self, items: Iterator[object]) -> Loaded:
        with ending_workers(items):
            yield from map(self._read_batch, items)

    def load_one(self, seed: int, index: int = 0) -> tuple[Tensor, Tensor]:
        """Load a batch of one image alone, in this process."""
        return self._read_batch(self.options["collate_fn"]([self._seed_items(seed)[-1, index]]))

    def _seed_items(self, seed: int) -> SeededDataset:
        # What another collate function makes labels from is not known.
        is_plain = self.options["collate_fn"].args == (default_collate,)
        check = self._choose_check() if is_plain else None
        return SeededDataset(self.dataset, seed, self.name, check)

    def _choose_check(self) -> Callable[[Tensor], None]:
        """Return what refuses labels of the data set that are no classes, as far as known."""
        known = (self.has_several, self.numbering, self.num_classes)
        return partial(check_classes, *known)

    def check_first(self, labels: Tensor) -> None:
        """Refuse the label (1,) of the first image, as the data set has it.

        Raises:
            ValueError: It is no class.
        """
        try:
            self._choose_check()(labels)
        except ValueError as error:
            message = f"image 0 of {self.name}: {error}"
            raise ValueError(append_path(message, self.dataset, 0)) from error

    def _read_batch(self, found: object) -> tuple[Tensor, Tensor]:
        images, labels = _check_batch(found)
        return images, self.translate(labels)

    def translate(self, labels: Tensor) -> Tensor:
        """Return labels (B,) of the data set as the numbers of the classes in `categories`."""
        return labels if self.numbering is None else self.numbering.translate(labels)

    def match(self, reference: Sequence[str], num_classes: int, owner: str = "the model") -> Source:
        """Return the source with labels that number the classes of a reference.

        Args:
            reference: Their names; empty if they are unknown.
            num_classes: Their number.
            owner: What names them, for the message.

        Raises:
            ValueError: The data have other classes.
        """
        names = list_categories(self.dataset)
        numbering = number_classes(names, reference, lambda: num_classes, self.name, owner)
        categories = tuple(reference) or names
        return replace(self, categories=categories, numbering=numbering, num_classes=num_classes)

    def digest_labels(self) -> str:
        """Return a hash of all labels, where the data set has them as `labels` or `targets`."""
        for name in ("labels", "targets"):
            found = getattr(self.dataset, name, None)
            try:
                labels = torch.as_tensor(found)
            except (TypeError, ValueError, RuntimeError):
                continue
            if labels.shape == (len(self),) or is_multi_label(labels):
                return manifest.digest(manifest.iterate_bytes([("labels", labels)]))
        return "not known"


@contextmanager
def block_sigint() -> Iterator[None]:
    """Block SIGINT in processes started inside the block; here it waits for the block's end."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    resource_tracker.ensure_running()  # its start unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _choose_options(loader: DataLoader[Any] | None, workers: int) -> dict[str, Any]:
    """Return the arguments of a loader that say how images are read, not which."""
    if loader is None:
        return {
            "num_workers": workers,
            "collate_fn": partial(_collate, default_collate),
            "worker_init_fn": partial(_start_worker, None),
        }
    count = loader.num_workers or workers
    return {
        "num_workers": count,
        "collate_fn": partial(_collate, loader.collate_fn),
        "pin_memory": loader.pin_memory,
        "timeout": loader.timeout,
        "worker_init_fn": partial(_start_worker, loader.worker_init_fn),
        "multiprocessing_context": loader.multiprocessing_context if count else None,
        "prefetch_factor": loader.prefetch_factor if count else None,
    }


def _start_worker(init: Callable[[int], None] | None, worker: int) -> None:
    """Ignore Ctrl-C in a worker: the training stops after its step, and needs it until then.

    Most workers have it blocked from their start, see `block_sigint`, but not those of a fork
    server that ran before.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if init is not None:
        init(worker)


def _collate(collate: Callable[[list[Any]], Any], items: list[Any]) -> Any:  # noqa: ANN401
    """Return the batch of some items, or the error for which there is none."""
    try:
        return collate_items(collate, items)
    except RuntimeError as error:
        if "equal size" not in str(error):
            raise
        return ValueError(
            "the images of a batch are not of one size; have the data set's transform crop or "
            f"resize them ({error})"
        )


def check_loader(loader: DataLoader[Any], name: str) -> None:
    """Refuse a loader that chooses, repeats or groups images by itself.

    Raises:
        ValueError: It does.
    """
    sampler: object = loader.sampler
    own = datasets.makes_own_batches(loader)
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


def _check_batch(found: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - whatever the data gives
    if isinstance(found, TypeError | ValueError):
        raise found
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
        raise TypeError(
            "an item must be (image, label), got an image without a label; training needs labels"
        )
    return images, _check_labels(parts[1], len(images))


def _check_labels(given: object, count: int) -> Tensor:
    try:
        labels = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"labels must be integers, got {type(given).__name__}") from error
    if is_multi_label(labels) and len(labels) == count:
        return labels
    if labels.shape != (count,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(
            f"labels must be one integer an image, or ({count}, K) bool, got "
            f"{tuple(labels.shape)} of {labels.dtype} for {count} images"
        )
    return labels.long()
