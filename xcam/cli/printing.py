"""What is printed: tables, and warnings as plain lines."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

import typer

__all__ = ["sentences", "table"]


@contextmanager
def sentences() -> Iterator[None]:
    """Warnings of ours as plain lines on stderr, each once."""
    from xcam.errors import XcamWarning

    show, said = warnings.showwarning, set[str]()

    def one_line(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, XcamWarning):
            show(message, category, filename, lineno, file, line)
        elif str(message) not in said:
            said.add(str(message))
            typer.echo(f"xcam: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", XcamWarning)
        warnings.showwarning = one_line
        yield


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints left-aligned columns, the last one without trailing blanks."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())
