"""The table of results: what each method reaches by each metric, and how certain that is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from xcam.core import Metric
from xcam.results.bootstrap import Estimate
from xcam.results.estimates import estimates, warn_of_undefined
from xcam.results.rows import Group, Rows

__all__ = ["tabulate"]

_NOTHING = {"value": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}


def tabulate(
    rows: Rows, metrics: Mapping[str, Metric], controls: Collection[str], resamples: int, seed: int
) -> pd.DataFrame:
    """The table of `Results.table`."""
    found: dict[tuple[str, Group], Estimate] = {}
    for portion in rows.portions({label: rows.groups(label) for label in metrics}):
        told = estimates(rows, metrics, portion, resamples=resamples, seed=seed)
        found |= {key: result for key, (result, _) in told.items()}
    undefined = ((label, result.undefined) for (label, _), result in found.items())
    warn_of_undefined(undefined, resamples)
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
                **_numbers(found.get((label, group))),
                "rows": line["rows"],
                "errors": line["errors"],
            }
        )
    return _sorted(pd.DataFrame(lines))


def _numbers(result: Estimate | None) -> dict[str, Any]:
    if result is None:  # no row worked
        return _NOTHING
    low, high = result.interval()
    return {"value": result.value, "low": low, "high": high, "n": result.images}


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    """By model and metric; the controls last, the best first, and by name without a direction."""
    sign = table["direction"].map({"higher": -1.0, "lower": 1.0, "neither": 0.0})
    ordered = table.assign(place=sign * table["value"]).sort_values(
        ["model", "metric", "control", "place", "method"], ignore_index=True
    )
    return ordered.drop(columns="place")
