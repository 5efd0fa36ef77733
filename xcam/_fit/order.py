"""The order of the images and the seeds of all that is drawn, as functions of counters.

The order of an epoch's images follows from (seed, epoch), what an item draws from (seed, epoch,
index), what a step draws from (seed, epoch, step, rank, part). So a training resumes at any step,
with any number of workers, and draws what it would have drawn.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

__all__ = ["Key", "Order", "list_evaluation_batches", "seed_all", "seed_item"]

Key: TypeAlias = tuple[int, int]  # epoch and index
_EVALUATION = -1  # the epoch of images that are only measured


def seed_all(*counters: object) -> None:
    """Seed torch's generators (of all devices), numpy's and Python's global ones."""
    for_torch, for_numpy, for_python = _derive_seeds(*counters)
    torch.manual_seed(for_torch)
    np.random.seed(for_numpy)
    random.seed(for_python)


def seed_item(*counters: object) -> None:
    """Seed like `seed_all`, but of torch's generators only the CPU's: this runs once an image."""
    for_torch, for_numpy, for_python = _derive_seeds(*counters)
    torch.default_generator.manual_seed(for_torch)
    np.random.seed(for_numpy)
    random.seed(for_python)


def _derive_seeds(*counters: object) -> tuple[int, int, int]:
    """Return seeds for torch, numpy and Python: a hash, so that neighbors are unrelated."""
    content = hashlib.blake2b(repr(counters).encode(), digest_size=20).digest()
    return (
        int.from_bytes(content[:8], "big") >> 1,
        int.from_bytes(content[8:12], "big"),
        int.from_bytes(content[12:], "big"),
    )


@dataclass(frozen=True)
class Order:
    """Which images make which step of which epoch, and which of them this process computes.

    A step's images are cut into `num_processes` × `accumulate` parts of nearly equal size; a
    process computes every `num_processes`-th of them, one after the other.

    Attributes:
        num_images: Images of the data set.
        batch_size: Images a step.
        drop_last: Whether an epoch leaves out the images that do not fill a step.
        seed: Of the order.
        rank: Of this process.
        num_processes: Processes that share each step.
        accumulate: Parts a step that each process computes.
    """

    num_images: int
    batch_size: int
    drop_last: bool
    seed: int
    rank: int = 0
    num_processes: int = 1
    accumulate: int = 1

    @property
    def steps(self) -> int:
        """Return the number of steps an epoch."""
        if self.drop_last:
            return self.num_images // self.batch_size
        return -(-self.num_images // self.batch_size)

    @property
    def parts(self) -> int:
        """Return the number of parts a step, over all processes."""
        return self.num_processes * self.accumulate

    def count_images(self, step: int) -> int:
        """Return the number of images in a step of this number."""
        return min(self.batch_size, self.num_images - step * self.batch_size)

    def split(self, num_images: int) -> list[slice]:
        """Return where in a step of so many images each part of this process lies.

        No part is empty, except the only one of a process for which no image is left.
        """
        size, more = divmod(num_images, self.parts)
        starts = [part * size + min(part, more) for part in range(self.parts + 1)]
        mine = [
            slice(starts[part], starts[part + 1])
            for part in range(self.rank, self.parts, self.num_processes)
        ]
        return [part for part in mine if part.stop > part.start] or mine[:1]

    def iterate(self, epoch: int, step: int, epochs: int) -> Iterator[list[Key]]:
        """Yield the keys of each part of this process, from a step to the end of the last epoch.

        An empty part, of a last step with fewer images than processes, holds the step's first
        image, which counts nothing: all processes have to take all steps.
        """
        end = min(self.num_images, self.steps * self.batch_size)
        for number in range(epoch, epochs):
            order = self._shuffle(number)
            for start in range(step * self.batch_size, end, self.batch_size):
                chosen = order[start : start + self.batch_size].tolist()
                for part in self.split(len(chosen)):
                    yield [(number, index) for index in chosen[part] or chosen[:1]]
            step = 0

    def count_smallest_part(self) -> int:
        """Return the number of images in the smallest part of an epoch, at least 1."""
        return max(1, self.count_images(self.steps - 1) // self.parts)

    def _shuffle(self, epoch: int) -> torch.Tensor:
        seed, _, _ = _derive_seeds("order", self.seed, epoch)
        return torch.randperm(self.num_images, generator=torch.Generator().manual_seed(seed))


def list_evaluation_batches(
    num_images: int, batch_size: int, rank: int = 0, num_processes: int = 1, shuffle: bool = False
) -> Sequence[list[Key]]:
    """Return the keys of this process's batches when every image is measured once.

    They come in their order, or shuffled, always in the same way: a folder's order is class by
    class, and some losses compare the images of a batch.
    """
    order: Sequence[int] = range(num_images)
    if shuffle:
        order = torch.randperm(num_images, generator=torch.Generator().manual_seed(0)).tolist()
    keys = [(_EVALUATION, index) for index in order[rank::num_processes]]
    return [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
