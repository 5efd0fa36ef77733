"""Results of metrics with their uncertainty, from rows, and the table of all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd
from torch import Tensor

from xcam.core import Metric
from xcam.errors import warn
from xcam.results.bootstrap import Estimate, estimate
from xcam.results.rows import Group, Rows

__all__ = ["Estimates", "make_estimates", "tabulate", "warn_undefined"]

_NO_ESTIMATE = {"value": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}

Estimates: TypeAlias = dict[tuple[str, Group], tuple[Estimate, Tensor]]
"""By metric and group: the estimate, and the rows that it is from, (N,) bool."""


def make_estimates(
    rows: Rows,
    metrics: Mapping[str, Metric],
    portion: Mapping[str, Sequence[Group]],
    only: Tensor | None = None,
    *,
    resamples: int,
    seed: int,
) -> Estimates:
    """Estimate the results of a portion of the rows; see `Rows.split_groups`.

    Args:
        rows: Of the evaluation.
        metrics: By their labels.
        portion: Some groups of each metric.
        only: (N,) bool, the rows to take; all that worked by default.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """
    found: Estimates = {}
    for label, batch in rows.read_batches(portion, only).items():
        results = estimate(batch.samples, metrics[label].finish, resamples, seed)
        keys = ((label, group) for group in batch.groups)
        found.update(zip(keys, zip(results, batch.present, strict=True), strict=True))
    return found


def warn_undefined(found: Iterable[tuple[str, int]], resamples: int) -> None:
    """Warn once for a whole table which metrics are undefined on some of their resamples.

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
        warn(
            f"of {resamples} resamples, intervals leave out those on which the result is "
            f"undefined: {listed}",
        )


def tabulate(
    rows: Rows, metrics: Mapping[str, Metric], controls: Collection[str], resamples: int, seed: int
) -> pd.DataFrame:
    """Return the table of `Results.table`."""
    found: dict[tuple[str, Group], Estimate] = {}
    for portion in rows.split_groups({label: rows.list_groups(label) for label in metrics}):
        part = make_estimates(rows, metrics, portion, resamples=resamples, seed=seed)
        found |= {key: result for key, (result, _) in part.items()}
    undefined = ((label, result.undefined) for (label, _), result in found.items())
    warn_undefined(undefined, resamples)
    lines = []
    for line in rows.summary.to_dict("records"):
        label, group = line["metric"], (line["model"], line["method"])
        lines.append(
            {
                "model": line["model"],
                "metric": label,
                "direction": metrics[label].spec.direction,
                "method": line["method"],
                "control": line["method"] in controls,
                **_describe_estimate(found.get((label, group))),
                "rows": line["rows"],
                "errors": line["errors"],
                "flat": line["flat"],
            }
        )
    return _sort(pd.DataFrame(lines))


def _describe_estimate(result: Estimate | None) -> dict[str, Any]:
    if result is None:  # no row worked
        return _NO_ESTIMATE
    low, high = result.interval()
    return {"value": result.value, "low": low, "high": high, "n": result.images}


def _sort(table: pd.DataFrame) -> pd.DataFrame:
    """Sort by model and metric, controls last, the best first; by name without a direction."""
    sign = table["direction"].map({"higher": -1.0, "lower": 1.0, "neither": 0.0})
    ordered = table.assign(place=sign * table["value"]).sort_values(
        ["model", "metric", "control", "place", "method"], ignore_index=True
    )
    return ordered.drop(columns="place")
