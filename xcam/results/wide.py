"""A table for the terminal: a line a method, a column a metric, the best group marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from xcam.core import Metric
from xcam.results.contrasts import tabulate_differences
from xcam.results.rows import Rows

__all__ = ["find_best_groups", "order_methods", "render_wide"]

_ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}
_LONGEST = 28  # letters of a method's label
_LEGEND = "* the best, or not significantly worse (paired bootstrap, Holm, 5 %); no controls"


def find_best_groups(
    rows: Rows, metrics: Mapping[str, Metric], table: pd.DataFrame, resamples: int = 2000
) -> set[tuple[str, str, str]]:
    """Return the model, metric and method of each method that none is significantly better than.

    For each model and metric that ranks maps the best method is compared with each other one on
    the images of both. Controls are left out.

    Args:
        rows: Of the evaluation.
        metrics: By label.
        table: What `Results.table` returns.
        resamples: Of the bootstrap.
    """
    best: set[tuple[str, str, str]] = set()
    ranking = table[~table["control"] & table["value"].notna()]
    for (model, label), lines in ranking.groupby(["model", "metric"]):
        spec = metrics[label].spec
        if spec.higher_is_better is None or not spec.reads_maps:
            continue
        ordered = lines.sort_values("value", ascending=not spec.higher_is_better)["method"].tolist()
        first, *others = ordered
        pairs = [(first, other) for other in others]
        chosen = {label: metrics[label]}
        found = tabulate_differences(rows, chosen, pairs, "method", resamples, 0, str(model))
        worse = set(found.loc[found["better"] == first, "b"])
        best |= {(str(model), str(label), name) for name in ordered if name not in worse}
    return best


def render_wide(table: pd.DataFrame, best: set[tuple[str, str, str]], width: int | None) -> str:
    """Return the results as text, a block a model, no line longer than `width`.

    Args:
        table: What `Results.table` returns.
        best: What `find_best_groups` returns.
        width: Letters of a line; columns that do not fit are left out, and a last line says so.
            None for any.
    """
    heads = {
        line["metric"]: f"{line['metric']} {_ARROWS[line['direction']]}".rstrip()
        for line in table.drop_duplicates("metric").to_dict("records")
    }
    blocks, shown, metrics = [], len(heads), list(heads)
    models = list(table.groupby("model", sort=False))
    cells = [_fill_block(part, str(model), metrics, best) for model, part in models]
    for (model, _), block in zip(models, cells, strict=True):
        title = f"{model}" if len(models) > 1 else ""
        lines = [["method", *heads.values()], *block]
        fitting = _count_fitting(lines, width)
        shown = min(shown, fitting)
        blocks.append((title, lines))
    parts = []
    for title, lines in blocks:
        kept = [line[: shown + 1] for line in lines]
        parts.append("\n".join([*([title] if title else []), *_align(kept)]))
    if shown < len(metrics):
        left_out = ", ".join(metrics[shown:])
        parts.append(f"left out, the line is too short: {left_out}")
    if any(metric in metrics[:shown] for _, metric, _ in best):
        parts.append(_LEGEND)
    return "\n".join(parts)


def order_methods(part: pd.DataFrame) -> list[str]:
    """Return the methods of a model's results by their mean rank, then the controls."""
    score = part["value"] * part["direction"].map({"higher": -1.0, "lower": 1.0})
    ranks = score.groupby(part["metric"]).rank().groupby(part["method"]).mean()
    controls = part.groupby("method")["control"].first()
    return sorted(map(str, ranks.index), key=lambda name: (controls[name], ranks[name], name))


def _fill_block(
    part: pd.DataFrame, model: str, metrics: Sequence[str], best: set[tuple[str, str, str]]
) -> list[list[str]]:
    """Return the cells of a model: the methods by their mean rank, then the controls."""
    values = {(line["method"], line["metric"]): line for line in part.to_dict("records")}
    return [
        [
            _shorten(method),
            *(
                _format(values.get((method, metric)), (model, metric, method) in best)
                for metric in metrics
            ),
        ]
        for method in order_methods(part)
    ]


def _format(line: Mapping[str, object] | None, is_best: bool) -> str:
    value = float("nan") if line is None else float(str(line["value"]))
    if value != value:
        return "-"
    return f"{value:.3f}{'*' if is_best else ' '}"


def _shorten(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"


def _count_fitting(lines: Sequence[Sequence[str]], width: int | None) -> int:
    """Return how many columns beside the first fit, one at least."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if width is None:
        return len(widths) - 1
    used, count = widths[0], 0
    for one in widths[1:]:
        used += 2 + one
        if used > width and count:
            break
        count += 1
    return count


def _align(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(size) for cell, size in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in lines
    ]
