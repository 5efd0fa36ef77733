"""Failures of single images, kept as data so that the other images go on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch.utils.data import Dataset

from xcam.data.items import append_path
from xcam.engine import forward
from xcam.engine.forward import Precision
from xcam.engine.shared import synchronize

__all__ = ["Cost", "Outcome", "StepRunner", "TolerantCollate", "TolerantDataset"]

T = TypeVar("T")
_NOTE_ON_AN_IMAGE = re.compile(r"image \d+:")


class Cost(NamedTuple):
    """The passes and the time that a result took, for one image.

    Attributes:
        seconds: By itself.
        passes: Images through the model by itself.
        passes_spent: Of these, how many no earlier step on the batch had made.
        seconds_spent: Those that went by.
    """

    seconds: float
    passes: float
    passes_spent: float
    seconds_spent: float


@dataclass(frozen=True, eq=False)
class Outcome(Generic[T]):
    """The result of a step on some images, with its costs and the errors of single images.

    Attributes:
        rows: The images for which there is a result, in its order.
        result: The joined result of these images; None if there are none.
        costs: What each of these images took.
        errors: For each image that failed, the error in a line.
    """

    rows: Sequence[int]
    result: T | None
    costs: Mapping[int, Cost]
    errors: Mapping[int, str]

    @staticmethod
    def join(parts: Sequence[Outcome[T]], join_results: Callable[[list[T]], T]) -> Outcome[T]:
        """Join the outcomes of steps on different images into one."""
        results = [part.result for part in parts if part.result is not None]
        return Outcome(
            rows=[row for part in parts for row in part.rows],
            result=join_results(results) if results else None,
            costs={row: cost for part in parts for row, cost in part.costs.items()},
            errors={row: error for part in parts for row, error in part.errors.items()},
        )


@dataclass(frozen=True, eq=False)
class StepRunner:
    """Runs a step on a whole batch and, where that fails, on each image alone.

    Attributes:
        device: The device of the images.
        batch_size: Images through the model at a time.
        precision: The precision that the model runs in.
        notes: Collects the notes of steps that do not speak of a single image.
    """

    device: torch.device
    batch_size: int | None
    precision: Precision
    notes: dict[str, None] = field(default_factory=dict)

    def run(
        self,
        rows: Sequence[int],
        step: Callable[[Sequence[int]], T],
        join_results: Callable[[list[T]], T],
    ) -> Outcome[T]:
        """Return what `step` gives for all rows at once or, if that fails, for each row alone.

        A fatal error is raised: memory that runs out for a single image, or a broken device.

        Args:
            rows: Images of the batch.
            step: Maps some rows to a result.
            join_results: Joins the results of single images into one.
        """
        if not rows:
            return Outcome([], None, {}, {})
        try:
            return self._measure(rows, step)
        except Exception as error:
            if _is_fatal(error, alone=len(rows) == 1):
                raise
            if len(rows) == 1:
                return Outcome([], None, {}, {rows[0]: _format_error(error)})
        singles = [self.run([row], step, join_results) for row in rows]
        return Outcome.join(singles, join_results)

    def _measure(self, rows: Sequence[int], step: Callable[[Sequence[int]], T]) -> Outcome[T]:
        with forward.run_settings(batch_size=self.batch_size, precision=self.precision) as run:
            begin = self._read_clock()
            result = step(rows)
            spent = self._read_clock() - begin
        self.notes.update((note, None) for note in run.notes if not _NOTE_ON_AN_IMAGE.match(note))
        seconds = spent + run.shared_seconds
        whole = seconds, run.passes, run.passes - run.shared_passes, spent
        cost = Cost(*(amount / len(rows) for amount in whole))
        return Outcome(rows, result, dict.fromkeys(rows, cost), {})

    def _read_clock(self) -> float:
        synchronize(self.device)
        return time.perf_counter()


@dataclass(frozen=True)
class _Unreadable:
    """An item that could not be read, and the error in a line."""

    error: str


@dataclass(frozen=True, eq=False)
class TolerantDataset(Dataset[Any]):
    """A data set that returns errors as items: raised in a worker, they would end the batch.

    Attributes:
        dataset: The data set whose items are read.
    """

    dataset: Any

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401 - an item is what the data set makes it
        """Return the item, or a record of the error that reading it raised."""
        try:
            return self.dataset[index]
        except Exception as error:
            if _is_fatal(error, alone=True):
                raise
            return _Unreadable(append_path(_format_error(error), self.dataset, index))


@dataclass(frozen=True, eq=False)
class TolerantCollate:
    """A collate function that leaves out the items that could not be read.

    Attributes:
        collate: Makes a batch of items.
    """

    collate: Callable[[list[Any]], Any]

    def __call__(self, items: Sequence[Any]) -> tuple[Any, Mapping[int, str]]:
        """Return the batch, None if it is empty, and the errors by the position of their item."""
        errors = {n: item.error for n, item in enumerate(items) if isinstance(item, _Unreadable)}
        readable = [item for n, item in enumerate(items) if n not in errors]
        return self._collate(readable) if readable else None, errors

    def _collate(self, items: list[Any]) -> Any:  # noqa: ANN401 - a batch is what `collate` makes it
        try:
            return self.collate(items)
        except TypeError as error:
            from PIL.Image import Image

            parts = items[0] if isinstance(items[0], list | tuple) else items[:1]
            if not any(isinstance(part, Image) for part in parts):
                raise
            raise TypeError(
                "the data set gives PIL images, and images must be tensors of one size: give it a "
                "transform, such as torchvision.transforms.v2.Compose([v2.ToImage(), "
                "v2.Resize((224, 224)), v2.ToDtype(torch.float32, scale=True)])"
            ) from error


def _format_error(error: Exception) -> str:
    """Return the error's class and message in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _is_fatal(error: Exception, alone: bool) -> bool:
    """Return whether to abort instead of recording a failed image.

    Memory that runs out for a single image will do so again, and after a CUDA error every call on
    the device fails.
    """
    memory = isinstance(error, MemoryError) or forward.out_of_memory(error)
    return (memory and alone) or "CUDA error" in str(error)
