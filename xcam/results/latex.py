"""The table of results in LaTeX."""

from __future__ import annotations

import pandas as pd

__all__ = ["escape", "render_table"]

_ARROWS = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "neither": ""}
_FLAT = r"$^\dagger$"
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def render_table(results: pd.DataFrame, intervals: bool, digits: int) -> str:
    """Return a booktabs tabular: a line a method, a column a metric, the best of each in bold.

    Args:
        results: What `Results.table` returns.
        intervals: Print the interval behind each value.
        digits: After the point.
    """
    columns = results.drop_duplicates("metric")
    heads = [
        escape(metric) + _ARROWS[direction]
        for metric, direction in zip(columns["metric"], columns["direction"], strict=True)
    ]
    lines = [
        rf"\begin{{tabular}}{{l{'c' * len(heads)}}}",
        r"\toprule",
        " & ".join(["Method", *heads]) + r" \\",
    ]
    models = list(results.groupby("model"))
    for model, part in models:
        lines.append(r"\midrule")
        if len(models) > 1:
            lines += [rf"\multicolumn{{{len(heads) + 1}}}{{l}}{{{escape(str(model))}}} \\"]
        lines += _make_lines(part, list(columns["metric"]), intervals, digits)
    lines.append(r"\bottomrule")
    if results["flat"].any():
        note = rf"{_FLAT} some of the maps are flat: they order no pixels"
        lines.append(rf"\multicolumn{{{len(heads) + 1}}}{{l}}{{\footnotesize {note}}} \\")
    return "\n".join([*lines, r"\end{tabular}", ""])


def escape(text: str) -> str:
    """Replace what LaTeX would not print as it is."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _make_lines(part: pd.DataFrame, metrics: list[str], intervals: bool, digits: int) -> list[str]:
    """Return the lines of one model, the controls last."""
    cells = {
        (line["method"], line["metric"]): _format_cell(line, intervals, digits)
        for line in _mark_best(part).to_dict("records")
    }
    flat = set(part.loc[part["flat"] > 0, "method"])
    lines: list[str] = []
    for control, methods in part.groupby("control")["method"]:
        if control and lines:
            lines.append(r"\addlinespace")
        for method in sorted(methods.unique()):
            name = escape(method) + (_FLAT if method in flat else "")
            row = [name, *(cells.get((method, metric), "--") for metric in metrics)]
            lines.append(" & ".join(row) + r" \\")
    return lines


def _mark_best(part: pd.DataFrame) -> pd.DataFrame:
    """Add a column `best`: whether no other method has a better value of the metric."""
    sign = part["direction"].map({"higher": 1.0, "lower": -1.0, "neither": float("nan")})
    score = sign * part["value"]
    return part.assign(best=score == score.groupby(part["metric"]).transform("max"))


def _format_cell(line: dict[str, object], intervals: bool, digits: int) -> str:
    value, low, high = (float(str(line[name])) for name in ("value", "low", "high"))
    if value != value:
        return "--"
    shown = f"{value:.{digits}f}"
    if line["best"]:
        shown = rf"\textbf{{{shown}}}"
    if not intervals or low != low:
        return shown
    return rf"{shown} {{\scriptsize [{low:.{digits}f}, {high:.{digits}f}]}}"
