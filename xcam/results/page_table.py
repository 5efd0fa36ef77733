"""The table of a page: a row a method, a column a metric, ranks and costs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pandas as pd

from xcam.core import Metric
from xcam.results.page_charts import Marker

__all__ = ["Cell", "Column", "Row", "list_columns", "list_rows"]

_NO_LINE = {"value": math.nan, "low": math.nan, "high": math.nan}
_ARROWS = {"higher": "\u00a0↑", "lower": "\u00a0↓", "neither": ""}


@dataclass(frozen=True)
class Column:
    """The head of a column; `first` is the order of the first click on it."""

    name: str
    title: str
    arrow: str = ""
    first: str = "ascending"


@dataclass(frozen=True)
class Cell:
    """A cell: what it sorts by, what it shows, and whether it is of the best group."""

    value: str
    text: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A method, and its cells behind the name."""

    marker: Marker
    control: bool
    cells: list[Cell]


def list_columns(metrics: Mapping[str, Metric], table: pd.DataFrame) -> list[Column]:
    """Return the heads behind the methods' names, for what `list_rows` returns."""
    heads = []
    for label in _list_metrics(metrics, table):
        spec = metrics[label].spec
        first = "descending" if spec.higher_is_better else "ascending"
        title = f"{spec.title}: {spec.formula}" if spec.formula else spec.title
        heads.append(Column(label, title, _ARROWS[spec.direction], first))
    return [
        Column("mean rank", "over the metrics that rank maps; 1 is best"),
        *heads,
        Column("seconds", "to explain an image by itself"),
        Column("errors", "rows without a value, over all metrics"),
        Column("flat", "maps that are the same everywhere, and point nowhere"),
    ]


def list_rows(
    table: pd.DataFrame,
    metrics: Mapping[str, Metric],
    markers: Mapping[str, Marker],
    best: Collection[tuple[str, str]],
    ranks: Mapping[str, float],
    seconds: Mapping[str, float],
) -> list[Row]:
    """Return the rows of a model, in the order of the markers.

    Args:
        table: What `Results.table` returns, of one model.
        metrics: By label.
        markers: Of the methods, by label.
        best: The metric and method of each value that is marked.
        ranks: The mean rank by method.
        seconds: To explain an image, by method.
    """
    lines = {(line["method"], line["metric"]): line for line in table.to_dict("records")}
    counts = table.groupby("method").agg({"errors": "sum", "flat": "max", "control": "first"})
    rows = []
    for method, marker in markers.items():
        cells = [_make_cell(ranks.get(method, math.nan), ".2f")]
        for label in _list_metrics(metrics, table):
            line = lines.get(
                (method, label), {"value": math.nan, "low": math.nan, "high": math.nan}
            )
            cells.append(
                _make_cell(
                    line["value"], ".3f", (line["low"], line["high"]), (label, method) in best
                )
            )
        cells.append(_make_cell(seconds.get(method, math.nan), ".3g"))
        cells += [_make_cell(float(counts.loc[method, name]), ".0f") for name in ("errors", "flat")]
        rows.append(Row(marker, bool(counts.loc[method, "control"]), cells))
    return rows


def _list_metrics(metrics: Mapping[str, Metric], table: pd.DataFrame) -> list[str]:
    known = set(table["metric"])
    return [label for label in metrics if label in known]


def _make_cell(
    value: float,
    digits: str,
    interval: tuple[float, float] = (math.nan, math.nan),
    best: bool = False,
) -> Cell:
    if not math.isfinite(value):
        return Cell("", "–")
    low, high = interval
    spread = f"{low:{digits}} … {high:{digits}}" if math.isfinite(low + high) else ""
    return Cell(repr(float(value)), _sign(f"{value:{digits}}"), _sign(spread), best)


def _sign(text: str) -> str:
    return text.replace("-", "−") if "e" not in text else text
