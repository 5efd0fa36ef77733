"""What is counted over an epoch: loss and right answers, on the device, read only now and then."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xcam.runs.processes import Processes

__all__ = ["Means", "Sums", "means", "runner_up", "summed"]


@dataclass(frozen=True)
class Means:
    """Over the images so far.

    Attributes:
        loss: The mean loss.
        top1: The share whose label has the highest logit.
        topk: The share whose label is among the k highest, see `runner_up`.
        images: How many.
    """

    loss: float
    top1: float
    topk: float
    images: int


def runner_up(classes: int) -> int:
    """The k of the second accuracy: 5, or 2 where 5 would say nothing."""
    return 5 if classes > 5 else min(2, classes)


def summed(values: Tensor, team: Processes) -> Tensor:
    """The sum over the processes, on each of them."""
    if team.count > 1:
        torch.distributed.all_reduce(values)
    return values


class Sums:
    """Of loss, right answers, those among the first k, and images; this process's share.

    Args:
        k: See `runner_up`.
        device: Where the values come up.
    """

    def __init__(self, k: int, device: torch.device) -> None:
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.k = k
        self.values = torch.zeros(4, dtype=exact, device=device)

    def start(self, totals: list[float]) -> None:
        """Goes on from what was summed before."""
        self.values += torch.tensor(totals, dtype=self.values.dtype, device=self.values.device)

    @torch.no_grad()
    def add(self, loss: Tensor, logits: Tensor | None, labels: Tensor, count: int) -> None:
        """Adds a batch's mean loss, and the answers for the first `count` of its images.

        Args:
            loss: A scalar.
            logits: (B, K); None where there are none: what is right is not known then.
            labels: (B,) int64.
            count: 0 for a batch that only keeps other processes company.
        """
        self.values[0] += loss.detach() * count if count else 0.0
        self.values[3] += count
        if logits is None:
            self.values[1:3] += torch.nan
        elif count:
            ranks = logits.topk(self.k, dim=1).indices.eq(labels[:, None])
            self.values[1] += ranks[:, 0].sum()
            self.values[2] += ranks.any(1).sum()

    def total(self, team: Processes, *more: float) -> list[float]:
        """The sums over all processes, of these values and of more."""
        values = torch.cat([self.values, self.values.new_tensor(more)])
        totals: list[float] = summed(values, team).tolist()
        return totals


def means(totals: list[float]) -> Means:
    """The means of some sums."""
    loss, top1, topk, images = totals
    return Means(loss / images, top1 / images, topk / images, int(images))
