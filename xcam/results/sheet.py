"""The table of results for papers: names as titles, values as text, marks; whatever the markup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from xcam.core import Metric
from xcam.results.wide import order_methods

__all__ = ["LEGEND", "Cell", "Line", "Sheet", "make_sheet"]

LEGEND = "not significantly worse than the best (paired bootstrap, Holm, 5 %)"


@dataclass(frozen=True)
class Cell:
    """A result.

    Attributes:
        value: As text; empty if there is none.
        interval: Its ends as text; empty if it is not to be printed.
        is_best: No other method's value is better, as printed.
        is_close: Another is, but not significantly.
    """

    value: str
    interval: tuple[str, ...] = ()
    is_best: bool = False
    is_close: bool = False


@dataclass(frozen=True)
class Line:
    """A method's results on a model.

    Attributes:
        model: The model's name.
        method: The method's title.
        is_control: Whether it is a control.
        has_flat: Whether some of its maps are flat.
        cells: One for each metric.
    """

    model: str
    method: str
    is_control: bool
    has_flat: bool
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Sheet:
    """The whole table.

    Attributes:
        metrics: The titles of the metrics, each with its direction.
        lines: A model after the other, controls last.
    """

    metrics: Sequence[tuple[str, str]]
    lines: Sequence[Line]

    @property
    def models(self) -> list[str]:
        """Return the names of the models."""
        return list(dict.fromkeys(line.model for line in self.lines))

    @property
    def has_close(self) -> bool:
        """Return whether any result is marked as close to the best."""
        return any(cell.is_close for line in self.lines for cell in line.cells)


def make_sheet(
    table: pd.DataFrame,
    best: set[tuple[str, str, str]],
    metrics: Mapping[str, Metric],
    titles: Mapping[str, str],
    intervals: bool,
    digits: int,
) -> Sheet:
    """Return the results with the best of each metric marked, those that print alike alike.

    Controls are not marked, nor are results of a metric that has no direction or reads no maps.

    Args:
        table: What `Results.table` returns.
        best: What `xcam.results.wide.find_best_groups` returns.
        metrics: By label.
        titles: Of methods, by label, where there are any.
        intervals: Whether to print them.
        digits: After the point.
    """
    heads = table.drop_duplicates("metric").set_index("metric")["direction"]
    lines: list[Line] = []
    for model, part in table.groupby("model"):
        lines += _make_lines(part, str(model), best, list(heads.index), titles, intervals, digits)
    names = [_find_title(label, metrics[label]) for label in heads.index]
    return Sheet(list(zip(names, heads, strict=True)), lines)


def _make_lines(
    part: pd.DataFrame,
    model: str,
    best: set[tuple[str, str, str]],
    metrics: Sequence[str],
    titles: Mapping[str, str],
    intervals: bool,
    digits: int,
) -> Iterator[Line]:
    found = {(line["method"], line["metric"]): line for line in part.to_dict("records")}
    texts = {key: f"{line['value']:.{digits}f}" for key, line in found.items()}
    firsts = {}
    for metric, lines in part.groupby("metric"):
        marked = lines[[(model, metric, method) in best for method in lines["method"]]]
        if len(marked):  # the table has the best first
            firsts[metric] = texts[marked["method"].iloc[0], metric]
    for method in order_methods(part):
        own = part[part["method"] == method]
        is_control = bool(own["control"].any())
        cells = [
            _make_cell(
                found.get((method, metric)),
                firsts.get(metric) if not is_control else None,
                (model, metric, method) in best,
                intervals,
                digits,
            )
            for metric in metrics
        ]
        name = titles.get(method, method)
        yield Line(model, name, is_control, bool((own["flat"] > 0).any()), cells)


def _make_cell(
    line: Mapping[str, Any] | None, first: str | None, is_close: bool, intervals: bool, digits: int
) -> Cell:
    if line is None or line["value"] != line["value"]:
        return Cell("")
    value, *ends = (f"{line[name]:.{digits}f}" for name in ("value", "low", "high"))
    shown = tuple(ends) if intervals and line["low"] == line["low"] else ()
    return Cell(value, shown, value == first, is_close and value != first)


def _find_title(label: str, metric: Metric) -> str:
    """Return the title of a metric that is labelled by its name, else the label."""
    return (label == metric.spec.name and metric.spec.title) or label
