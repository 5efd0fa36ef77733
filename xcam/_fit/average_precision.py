"""The average precision of each class, of images that may show several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xcam._fit.settings import Runtime

__all__ = ["compute_average_precisions", "compute_map", "gather_rows"]


def compute_average_precisions(scores: Tensor, labels: Tensor) -> Tensor:
    """Return how many images show each class, and the average precision of its scores.

    AP = Σ_i P_i (R_i − R_{i−1}), with the precision and the recall of the images whose score is at
    least the i-th of the distinct scores, from the highest; no interpolation, as in scikit-learn.

    Args:
        scores: (N, K), higher for more of the class.
        labels: (N, K) bool.

    Returns:
        (K, 2) float64; the average precision is NaN of a class that no image shows.
    """
    shown = labels.sum(0)
    order = scores.argsort(0, descending=True)
    ranked, hits = scores.gather(0, order), labels.gather(0, order)
    places = torch.arange(1, len(scores) + 1, dtype=torch.float64)[:, None]
    precision = hits.cumsum(0).double() / places
    # Equal scores are one threshold: each has the precision at the last of them.
    is_last = torch.ones_like(hits)
    is_last[:-1] = ranked[1:] != ranked[:-1]
    positions = torch.arange(len(scores))[:, None].expand_as(hits)
    last = positions.where(is_last, len(scores)).flip(0).cummin(0).values.flip(0)
    total = (precision.gather(0, last) * hits).sum(0)
    return torch.stack([shown.double(), total / shown], 1)


def compute_map(precisions: Tensor) -> float:
    """Return the mAP: the mean over the classes that an image shows."""
    return float(precisions[:, 1].nanmean())


def gather_rows(
    parts: Sequence[tuple[Tensor, Tensor]], num_classes: int, runtime: Runtime
) -> tuple[Tensor, Tensor]:
    """Return the scores and labels of all processes' batches, (N, K) each, on the CPU."""
    empty = torch.empty(0, num_classes)
    scores = torch.cat([empty, *(scores.cpu() for scores, _ in parts)])
    labels = torch.cat([empty.bool(), *(labels.cpu() for _, labels in parts)])
    count = runtime.processes.count
    if count == 1:
        return scores, labels
    found: list[tuple[Tensor, Tensor]] = [(scores, labels)] * count
    torch.distributed.all_gather_object(found, (scores, labels))
    return torch.cat([one for one, _ in found]), torch.cat([one for _, one in found])
