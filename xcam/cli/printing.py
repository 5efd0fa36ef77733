"""Printing of tables, and of warnings as plain lines."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

import typer

__all__ = ["print_table", "print_warnings"]


@contextmanager
def print_warnings() -> Iterator[None]:
    """Print xcam's own warnings in the block as plain lines on stderr, each once."""
    from xcam.errors import XcamWarning

    show, printed = warnings.showwarning, set[str]()

    def print_once(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, XcamWarning):
            show(message, category, filename, lineno, file, line)
        elif str(message) not in printed:
            printed.add(str(message))
            typer.echo(f"xcam: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", XcamWarning)
        warnings.showwarning = print_once
        yield


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print left-aligned columns, without trailing blanks."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())
