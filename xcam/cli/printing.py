"""Printing of tables, and of warnings as plain lines."""

from __future__ import annotations

import codecs
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

import typer

from xcam.sentences import escape_name

__all__ = ["print_table", "print_warnings", "tolerate_encoding"]

_PLAIN = {"∞": "inf", "−": "-", "–": "-", "×": "x", "…": "...", "→": "->", "≥": ">=", "≤": "<="}


def tolerate_encoding() -> None:
    """Make stdout and stderr spell out what their encoding lacks, as pipes of Windows do."""
    codecs.register_error("xcam.plain", _spell_out)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="xcam.plain")


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    """Return what to write instead of characters that an encoding lacks, as codecs want it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    plain = (_PLAIN.get(character) or escape_name(character) for character in lacking)
    text = "".join(plain).encode("ascii", "backslashreplace").decode()
    return text, error.end


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
