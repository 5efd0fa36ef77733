"""What the rows of some metrics say, with its uncertainty, and what is to be said of that."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from torch import Tensor

from xcam.core import Metric
from xcam.errors import XcamWarning
from xcam.results.bootstrap import Estimate, estimate
from xcam.results.rows import Group, Rows

__all__ = ["Estimates", "estimates", "warn_of_undefined"]

Estimates: TypeAlias = dict[tuple[str, Group], tuple[Estimate, Tensor]]
"""By metric and group: what is estimated, and from which rows, (N,) bool."""


def estimates(
    rows: Rows,
    metrics: Mapping[str, Metric],
    portion: Mapping[str, Sequence[Group]],
    only: Tensor | None = None,
    *,
    resamples: int,
    seed: int,
) -> Estimates:
    """What is estimated of a portion of the rows; see `Rows.portions`.

    Args:
        rows: Of the evaluation.
        metrics: By their labels.
        portion: The groups of each metric that is asked for.
        only: (N,) bool, the rows to take; all that worked by default.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """
    found: Estimates = {}
    for label, batch in rows.batches(portion, only).items():
        results = estimate(batch.samples, metrics[label].finish, resamples, seed)
        keys = ((label, group) for group in batch.groups)
        found.update(zip(keys, zip(results, batch.present, strict=True), strict=True))
    return found


def warn_of_undefined(found: Iterable[tuple[str, int]], resamples: int) -> None:
    """Says, once for a whole table, which metrics are undefined on some of their resamples.

    Args:
        found: The label of a metric, and on how many resamples a result of it is undefined.
        resamples: How many there are.
    """
    most: dict[str, int] = {}
    for label, count in found:
        if count:
            most[label] = max(most.get(label, 0), count)
    if most:
        listed = ", ".join(f"{label} (up to {count})" for label, count in most.items())
        warnings.warn(
            f"of {resamples} resamples, intervals leave out those on which the result is "
            f"undefined: {listed}",
            XcamWarning,
            stacklevel=4,
        )
