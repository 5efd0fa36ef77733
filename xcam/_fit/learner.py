"""A net that learns: one optimiser step, and all that a step changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from xcam._fit.averaging import Averaging
from xcam._fit.counters import Share, seed_all
from xcam._fit.mixing import Mixing
from xcam._fit.objective import Objective
from xcam._fit.optimization import Optimization
from xcam._fit.place import Place, check_labels
from xcam._fit.sums import Sums

__all__ = ["Learner"]


@dataclass(frozen=True, eq=False)
class Learner:
    """What learns, and how.

    Attributes:
        objective: The loss, around the net.
        shared: The objective whose gradients the processes average; itself if there is one.
        optimisation: Of the net's parameters.
        averaging: Of its weights, if they are averaged.
        mixing: Of each batch, if it is mixed.
        classes: Their number.
        decides: Whether the logits depend on anything that learns, and accuracy tells epochs apart.
        place: Where the net runs.
        share: Which parts of a step's images are this process's.
        seed: Of what a step draws.
    """

    objective: Objective
    shared: nn.Module
    optimization: Optimization
    averaging: Averaging | None
    mixing: Mixing | None
    classes: int
    decides: bool
    place: Place
    share: Share
    seed: int

    @property
    def net(self) -> nn.Module:
        """The net as it would be used now: with averaged weights if they are averaged."""
        net = self.objective.net
        return net if self.averaging is None else self.averaging.of(net)

    def step(
        self,
        at: tuple[int, int, int],
        images: int,
        batches: Iterator[tuple[Tensor, Tensor]],
        sums: Sums,
    ) -> None:
        """Takes one step of the optimiser.

        A part's loss counts by its share of the step's images, so that the gradient is that of
        their mean, however they are cut into parts.

        Args:
            at: The epoch, the step of the epoch, and the number of steps an epoch.
            images: How many the step has, over all processes.
            batches: The parts of this process come next.
            sums: Where loss and right answers are added.

        Raises:
            ValueError: Labels that are no classes of the net.
        """
        epoch, number, steps = at
        self.objective.train()
        parts = self.share.parts(images)
        for index, part in enumerate(parts):
            count = part.stop - part.start
            batch, labels = next(batches)
            check_labels(labels, self.classes)
            with self._apart(last=index == len(parts) - 1):
                seed_all("step", self.seed, epoch, number, self.share.rank, index)
                labels = labels.to(self.place.device, non_blocking=True)
                loss, logits = self._forward(self.place.images(batch), labels)
                self.optimization.backward(loss * (count * self.share.count / images))
            sums.add(loss, logits, labels, count)
        self.optimization.step()
        if self.averaging is not None:
            self.averaging.passed(epoch * steps + number + 1, self.objective.net)

    def _forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        mixed = (images, labels) if self.mixing is None else self.mixing(images, labels)
        with self.place.autocast():
            found: tuple[Tensor, Tensor | None] = self.shared(*mixed)
        return found

    def _apart(self, last: bool) -> AbstractContextManager[object]:
        """Lets the processes exchange gradients once a step, with its last part."""
        if last or not isinstance(self.shared, DistributedDataParallel):
            return nullcontext()
        together: AbstractContextManager[object] = self.shared.no_sync()
        return together

    @torch.no_grad()
    def align(self) -> None:
        """Gives all processes the main one's buffers: each has statistics of its own images."""
        if self.share.count > 1:
            for buffer in self.net.buffers():
                torch.distributed.broadcast(buffer, 0)

    def state(self) -> dict[str, Any]:
        """What must be restored for the next step to be the same."""
        return {
            "net": self.objective.net.state_dict(),
            "average": None if self.averaging is None else self.averaging.average.state_dict(),
            **self.optimization.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state` gave."""
        self.objective.net.load_state_dict(state["net"])
        if self.averaging is not None:
            self.averaging.average.load_state_dict(state["average"])
        self.optimization.restore(state)
