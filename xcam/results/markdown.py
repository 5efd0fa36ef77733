"""The table of results in Markdown."""

from __future__ import annotations

import html
import re

from xcam.results.sheet import LEGEND, Cell, Sheet

__all__ = ["render_table"]

_ARROWS = {"higher": " ↑", "lower": " ↓", "neither": ""}


def render_table(sheet: Sheet) -> str:
    """Return a table as GitHub and Sphinx's MyST read it, the best of each metric in bold.

    Args:
        sheet: What it shows; a first column names the models if there are several.
    """
    has_several = len(sheet.models) > 1
    heads = [_escape(title) + _ARROWS[direction] for title, direction in sheet.metrics]
    first = ["model"] if has_several else []
    lines = [[*first, "method", *heads], [*("---" for _ in first), "---", *("---:" for _ in heads)]]
    for line in sheet.lines:
        name = _escape(line.method) + (" †" if line.has_flat else "")
        model = [_escape(line.model)] if has_several else []
        lines.append([*model, name, *map(_format_cell, line.cells)])
    notes = []
    if sheet.has_close:
        notes.append(rf"\* {LEGEND}")
    if any(line.has_flat for line in sheet.lines):
        notes.append("† some of the maps are flat: they order no pixels")
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([text, *notes]) + "\n"


def _format_cell(cell: Cell) -> str:
    if not cell.value:
        return "–"
    shown = f"**{cell.value}**" if cell.is_best else cell.value
    shown += r"\*" if cell.is_close else ""
    return f"{shown} [{', '.join(cell.interval)}]" if cell.interval else shown


def _escape(text: str) -> str:
    """Return text that no reader takes for markup, in a line."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", plain)
