"""Items of any data set, and errors that say which of them failed."""

from __future__ import annotations

import bisect
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.data import ConcatDataset, Subset, get_worker_info

__all__ = ["append_path", "collate_items", "ending_workers", "find_path", "read_item"]

# Where this package and torchvision hold the file of each item, alone or first of a tuple.
_FILES = (
    "paths",
    "samples",
    "_samples",
    "images",
    "_images",
    "image_files",
    "_image_files",
    "files",
)
_INNER = ("dataset", "data")


def find_path(dataset: Any, index: int) -> str:  # noqa: ANN401 - any with items by number
    """Find the file of an item, through subsets and other wrappers; empty if that is not known."""
    if isinstance(dataset, Subset):
        return find_path(dataset.dataset, dataset.indices[index])
    if isinstance(dataset, ConcatDataset):
        part = bisect.bisect_right(dataset.cumulative_sizes, index)
        start = dataset.cumulative_sizes[part - 1] if part else 0
        return find_path(dataset.datasets[part], index - start)
    for name in _FILES:
        entry = _pick(getattr(dataset, name, None), dataset, index)
        entry = entry[0] if isinstance(entry, list | tuple) and entry else entry
        if isinstance(entry, str | Path):
            return str(entry)
    inner = (getattr(dataset, name, None) for name in _INNER)
    return next((find_path(one, index) for one in inner if _has_items(one, dataset)), "")


def append_path(message: str, dataset: Any, index: int) -> str:  # noqa: ANN401
    """Return a message about an item with the item's file, unless that is named or not known."""
    path = find_path(dataset, index)
    return message if not path or path in message else f"{message} ({path!r})"


def read_item(dataset: Any, index: int, name: str) -> Any:  # noqa: ANN401 - whatever it holds
    """Return an item of a data set, or in a worker process the error that tells which one failed.

    Raised in a worker, torch would put the worker's traceback into the message.

    Args:
        dataset: Any with items by number.
        index: Of the item.
        name: Of the data set, for the message.

    Raises:
        MemoryError: There is no memory for it.
        ValueError: It cannot be had, for whatever reason; in this process only.
    """
    try:
        return dataset[index]
    except MemoryError:
        raise
    except Exception as error:
        is_expected = isinstance(error, ValueError | OSError)
        reason = str(error) if is_expected else f"{type(error).__name__}: {error}"
        failure = ValueError(append_path(f"image {index} of {name}: {reason}", dataset, index))
        if get_worker_info() is None:
            raise failure from error
        if not is_expected:  # a fault of code rather than of a file
            failure.__dict__["__notes__"] = [traceback.format_exc()]
        return failure


def collate_items(collate: Callable[[list[Any]], Any], items: list[Any]) -> Any:  # noqa: ANN401
    """Return the batch of some items, or the first error among them."""
    failed = (item for item in items if isinstance(item, TypeError | ValueError))
    failure = next(failed, None)
    return collate(items) if failure is None else failure


def _pick(found: object, dataset: object, index: int) -> object:
    """Return the entry of an item in a list that has one for each item."""
    is_list = isinstance(found, Sequence) and not isinstance(found, str)
    return found[index] if is_list and _has_items(found, dataset) else None  # type: ignore[index]


def _has_items(found: object, dataset: object) -> bool:
    """Return whether an object has as many items as a data set."""
    try:
        return hasattr(found, "__getitem__") and len(found) == len(dataset)  # type: ignore[arg-type]
    except TypeError:
        return False


@contextmanager
def ending_workers(batches: Iterator[object]) -> Iterator[None]:
    """End the workers of a `DataLoader`'s iterator with the block, also after an error.

    The error's traceback holds the iterator. Once both are collected as garbage, the queues that
    tell workers to end may be closed already, and the process waits five seconds for each worker.
    """
    try:
        yield
    finally:
        end = getattr(batches, "_shutdown_workers", None)  # there is no public way
        if end is not None:
            end()
