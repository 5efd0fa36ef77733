"""Randomness as a function of counters: what is drawn depends on where, not on what came before.

The order of an epoch's images follows from (seed, epoch), what an item draws from (seed, epoch,
index), what a step draws from (seed, epoch, step, rank, part). So a training can go on at any step,
with any number of workers, and draw what it would have drawn.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

__all__ = ["Key", "Keyed", "Order", "Refused", "Share", "seed_all", "whole"]

Key: TypeAlias = tuple[int, int]  # epoch and index; epoch −1 is of an evaluation
_EVALUATION = -1


def _numbers(*counters: object) -> tuple[int, int, int]:
    """Seeds for torch, numpy and Python: a hash, so that neighbours have nothing in common."""
    content = hashlib.blake2b(repr(counters).encode(), digest_size=20).digest()
    return (
        int.from_bytes(content[:8], "big") >> 1,
        int.from_bytes(content[8:12], "big"),
        int.from_bytes(content[12:], "big"),
    )


def seed_all(*counters: object) -> None:
    """Seeds torch's generators (of all devices), numpy's and Python's global ones."""
    for_torch, for_numpy, for_python = _numbers(*counters)
    torch.manual_seed(for_torch)
    np.random.seed(for_numpy)
    random.seed(for_python)


def _seed_item(*counters: object) -> None:
    """Like `seed_all`, but of torch's generators only the CPU's: this runs once an image."""
    for_torch, for_numpy, for_python = _numbers(*counters)
    torch.default_generator.manual_seed(for_torch)
    np.random.seed(for_numpy)
    random.seed(for_python)


@dataclass(frozen=True)
class Refused:
    """Why an item cannot be had; an error that leaves a worker has its traceback as its message."""

    sentence: str


class Keyed(Dataset[Any]):
    """A data set whose items draw their random numbers from (seed, epoch, index).

    Global generators stay where an item leaves them: each next item, and each step, seeds them.
    """

    def __init__(self, dataset: Any, seed: int) -> None:  # noqa: ANN401 - any with items by number
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, key: Key) -> Any:  # noqa: ANN401 - whatever the data set holds
        epoch, index = key
        _seed_item("item", self.seed, epoch, index)
        try:
            return self.dataset[index]
        except ValueError as error:
            if type(error) is not ValueError or get_worker_info() is None:
                raise
            return Refused(str(error))


@dataclass(frozen=True)
class Share:
    """Which parts of every step's images are one process's.

    A step's images are cut into `count` × `accumulate` parts as equal as can be; this process
    computes every `count`-th of them, one after the other.

    Attributes:
        rank: Of the process.
        count: Of the processes.
        accumulate: Parts a step that each process computes.
    """

    rank: int = 0
    count: int = 1
    accumulate: int = 1

    def parts(self, images: int) -> list[slice]:
        """Where in a step of so many images each part of this process lies.

        None is empty, but for the only one of a process for which no image is left.
        """
        number = self.count * self.accumulate
        least, more = divmod(images, number)
        starts = [place * least + min(place, more) for place in range(number + 1)]
        mine = [
            slice(starts[place], starts[place + 1])
            for place in range(self.rank, number, self.count)
        ]
        return [part for part in mine if part.stop > part.start] or mine[:1]


@dataclass(frozen=True)
class Order:
    """Which images make which step of which epoch.

    Attributes:
        images: How many the data set has.
        batch_size: Of a step.
        drop_last: Whether an epoch leaves out the images that do not fill a step.
        seed: Of the order.
    """

    images: int
    batch_size: int
    drop_last: bool
    seed: int

    @property
    def steps(self) -> int:
        """How many an epoch has."""
        if self.drop_last:
            return self.images // self.batch_size
        return -(-self.images // self.batch_size)

    def size(self, step: int) -> int:
        """How many images a step of this number has."""
        return min(self.batch_size, self.images - step * self.batch_size)

    def keys(self, epoch: int, step: int, epochs: int, share: Share) -> Iterator[list[Key]]:
        """The parts of one process, from a step of an epoch to the end of the last epoch.

        A part that is empty, of a last step with fewer images than processes, holds the step's
        first image: processes have to take their steps together. It counts nothing.
        """
        for number in range(epoch, epochs):
            order = self._shuffled(number)
            for start in range(step * self.batch_size, self._end(), self.batch_size):
                chosen = order[start : start + self.batch_size].tolist()
                for part in share.parts(len(chosen)):
                    yield [(number, index) for index in chosen[part] or chosen[:1]]
            step = 0

    def smallest(self, parts: int) -> int:
        """How many images the smallest part has, if steps are cut into so many."""
        return max(1, self.size(self.steps - 1) // parts)

    def _end(self) -> int:
        return min(self.images, self.steps * self.batch_size)

    def _shuffled(self, epoch: int) -> torch.Tensor:
        seed, _, _ = _numbers("order", self.seed, epoch)
        return torch.randperm(self.images, generator=torch.Generator().manual_seed(seed))


def whole(
    images: int, batch_size: int, rank: int = 0, count: int = 1, mixed: bool = False
) -> Sequence[list[Key]]:
    """Batches of every image once, shared by processes: what an evaluation sees.

    In order, or mixed, always in the same way: a folder's order is class by class.
    """
    order: Sequence[int] = range(images)
    if mixed:
        order = torch.randperm(images, generator=torch.Generator().manual_seed(0)).tolist()
    keys = [(_EVALUATION, index) for index in order[rank::count]]
    return [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
