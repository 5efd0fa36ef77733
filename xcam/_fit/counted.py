"""Counts of right answers over a data set, as a table and as means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from xcam._fit.average_precision import compute_map
from xcam.core import describe_unreadable
from xcam.errors import ModelOutputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Counted", "average_counts", "average_sums", "second_k", "tabulate"]


class Counted(NamedTuple):
    """Right answers and losses over a data set, as `count_correct` returns them.

    Attributes:
        answers: Images, right answers, and those among the first k of each class, (K, 3) int64. Of
            images with several labels one line for all of them, (1, 3): whether the class of the
            highest logit, or of one of the first k, is one of the labels.
        loss: The mean, as the criterion would take it over all images; 0 if none is measured.
        unreadable: The number of an image for which the net's output is not finite; None if it is
            for all.
        precisions: Of images with several labels, `(images, average precision)` of each class,
            (K, 2) float64; None of one label.
        top: k.
    """

    answers: Tensor
    loss: float
    unreadable: int | None
    precisions: Tensor | None
    top: int


def tabulate(counted: Counted, categories: Sequence[str]) -> pd.DataFrame:
    """Return what was counted as the table that `accuracy` describes.

    Raises:
        ModelOutputError: An output is not finite.
    """
    import pandas as pd

    if counted.unreadable is not None:
        raise ModelOutputError(describe_unreadable(counted.unreadable))
    if counted.precisions is not None:
        return _tabulate_precisions(counted, counted.precisions, categories)
    counts = counted.answers
    names = categories if len(categories) == len(counts) else range(len(counts))
    rows = torch.cat([counts, counts.sum(0, keepdim=True)])
    images, top1, topk = rows.double().T
    return pd.DataFrame(
        {
            "class": [*names, "all"],
            "n": rows[:, 0].tolist(),
            "correct": rows[:, 1].tolist(),
            "accuracy": (top1 / images).tolist(),
            f"top{counted.top}": (topk / images).tolist(),
        }
    )


def _tabulate_precisions(
    counted: Counted, precisions: Tensor, categories: Sequence[str]
) -> pd.DataFrame:
    import pandas as pd

    shown, values = precisions.T.tolist()
    names = categories if len(categories) == len(shown) else range(len(shown))
    return pd.DataFrame(
        {
            "class": [*names, "all"],
            "n": [*map(int, shown), int(counted.answers[0, 0])],
            "average_precision": [*values, compute_map(precisions)],
        }
    )


def average_counts(counted: Counted) -> dict[str, float]:
    """Return the mean loss and accuracies of what `count_correct` gave."""
    images, top1, topk = counted.answers.sum(0).tolist()
    means = {"loss": counted.loss, "accuracy": top1 / images, f"top{counted.top}": topk / images}
    if counted.precisions is not None:
        means["map"] = compute_map(counted.precisions)
    return means


def second_k(num_classes: int) -> int:
    """Return the k of the top-k accuracy: 5, or 2 if there are too few classes for top-5."""
    return 5 if num_classes > 5 else min(2, num_classes)


def average_sums(sums: list[float], num_classes: int) -> dict[str, float]:
    """Return the mean loss and the accuracies of sums over images."""
    loss, top1, topk, images = sums
    return {
        "loss": loss / images,
        "accuracy": top1 / images,
        f"top{second_k(num_classes)}": topk / images,
    }
