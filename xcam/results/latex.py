"""The table of results in LaTeX."""

from __future__ import annotations

from xcam.results.sheet import LEGEND, Cell, Line, Sheet

__all__ = ["escape", "render_table"]

_ARROWS = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "neither": ""}
_FLAT = r"$^\dagger$"
_CLOSE = "$^*$"
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def render_table(sheet: Sheet) -> str:
    """Return a booktabs tabular: a line a method, a column a metric, the best of each in bold.

    Args:
        sheet: What it shows.
    """
    heads = [escape(title) + _ARROWS[direction] for title, direction in sheet.metrics]
    lines = [
        rf"\begin{{tabular}}{{l{'c' * len(heads)}}}",
        r"\toprule",
        " & ".join(["Method", *heads]) + r" \\",
    ]
    for model in sheet.models:
        lines.append(r"\midrule")
        if len(sheet.models) > 1:
            lines += [rf"\multicolumn{{{len(heads) + 1}}}{{l}}{{{escape(model)}}} \\"]
        lines += _make_lines([line for line in sheet.lines if line.model == model])
    lines.append(r"\bottomrule")
    notes = []
    if sheet.has_close:
        notes.append(f"{_CLOSE} {escape(LEGEND)}")
    if any(line.has_flat for line in sheet.lines):
        notes.append(rf"{_FLAT} some of the maps are flat: they order no pixels")
    for note in notes:
        lines.append(rf"\multicolumn{{{len(heads) + 1}}}{{l}}{{\footnotesize {note}}} \\")
    return "\n".join([*lines, r"\end{tabular}", ""])


def escape(text: str) -> str:
    """Replace what LaTeX would not print as it is."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _make_lines(lines: list[Line]) -> list[str]:
    """Return the lines of one model, the controls apart."""
    found: list[str] = []
    for before, line in zip([lines[0], *lines], lines, strict=False):
        if line.is_control and not before.is_control:
            found.append(r"\addlinespace")
        name = escape(line.method) + (_FLAT if line.has_flat else "")
        found.append(" & ".join([name, *map(_format_cell, line.cells)]) + r" \\")
    return found


def _format_cell(cell: Cell) -> str:
    if not cell.value:
        return "--"
    shown = rf"\textbf{{{cell.value}}}" if cell.is_best else cell.value
    shown += _CLOSE if cell.is_close else ""
    if not cell.interval:
        return shown
    return rf"{shown} {{\scriptsize [{', '.join(cell.interval)}]}}"
