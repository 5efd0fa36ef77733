"""Trying a step on a whole batch and, where it fails, on one image after the other."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

from xcam.engine import forward
from xcam.engine.forward import Precision

__all__ = ["Attempts", "Outcome", "says_nothing", "sentence"]

T = TypeVar("T")
_OF_AN_IMAGE = re.compile(r"image \d+:")


@dataclass(frozen=True, eq=False)
class Outcome(Generic[T]):
    """What became of some images.

    Attributes:
        rows: The images for which there is a result, in its order.
        result: For these, joined; None if there are none.
        costs: Of each of them, the seconds and the images through the model that it took.
        errors: Of each of the others, what went wrong.
    """

    rows: Sequence[int]
    result: T | None
    costs: Mapping[int, tuple[float, float]]
    errors: Mapping[int, str]

    @staticmethod
    def joined(parts: Sequence[Outcome[T]], join: Callable[[list[T]], T]) -> Outcome[T]:
        """The outcome of several steps, of different images, by what makes one of their results."""
        results = [part.result for part in parts if part.result is not None]
        return Outcome(
            rows=[row for part in parts for row in part.rows],
            result=join(results) if results else None,
            costs={row: cost for part in parts for row, cost in part.costs.items()},
            errors={row: error for part in parts for row, error in part.errors.items()},
        )


@dataclass(frozen=True, eq=False)
class Attempts:
    """How steps are run.

    Attributes:
        device: Of the images.
        batch_size: Images through the model at a time.
        precision: The model runs in.
        notes: Filled with what steps say in general, not of single images.
    """

    device: torch.device
    batch_size: int | None
    precision: Precision
    notes: dict[str, None] = field(default_factory=dict)

    def run(
        self,
        rows: Sequence[int],
        step: Callable[[Sequence[int]], T],
        join: Callable[[list[T]], T],
        default_layer: str | None = None,
    ) -> Outcome[T]:
        """What `step` gives for all rows at once or, if that fails, for each of them alone.

        Memory that runs out for a single image says nothing about the image, and a device that
        broke says nothing about any: both end the evaluation.

        Args:
            rows: Images of the batch.
            step: From some of them to a result.
            join: Makes one result of those of single images.
            default_layer: The layer that was chosen for the user, if one was.
        """
        if not rows:
            return Outcome([], None, {}, {})
        try:
            return self._measured(rows, step, default_layer)
        except Exception as error:
            if says_nothing(error, alone=len(rows) == 1):
                raise
            if len(rows) == 1:
                return Outcome([], None, {}, {rows[0]: sentence(error)})
        singles = [self.run([row], step, join, default_layer) for row in rows]
        return Outcome.joined(singles, join)

    def _measured(
        self, rows: Sequence[int], step: Callable[[Sequence[int]], T], default_layer: str | None
    ) -> Outcome[T]:
        with forward.run_settings(self.batch_size, self.precision) as run:
            run.default_layer = default_layer
            begun = self._now()
            result = step(rows)
            seconds = self._now() - begun
        self.notes.update((note, None) for note in run.notes if not _OF_AN_IMAGE.match(note))
        cost = (seconds / len(rows), run.passes / len(rows))
        return Outcome(rows, result, dict.fromkeys(rows, cost), {})

    def _now(self) -> float:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()


def sentence(error: Exception) -> str:
    """What went wrong, in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def says_nothing(error: Exception, alone: bool) -> bool:
    """Whether an error is no news about the images that it came with."""
    memory = isinstance(error, MemoryError) or forward.out_of_memory(error)
    return (memory and alone) or "CUDA error" in str(error)
