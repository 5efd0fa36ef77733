"""Parts of messages: names of files that any table and terminal can hold, and counts."""

from __future__ import annotations

from pathlib import Path

__all__ = ["escape_name", "pluralize", "quote_path"]


def escape_name(name: str) -> str:
    r"""Return a file's name with the bytes that are no UTF-8 spelled out, such as `caf\xe9.png`.

    Python holds such bytes as lone surrogates, which neither Parquet, JSON nor a terminal takes.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def quote_path(path: str | Path) -> str:
    """Return a path in quotes, spelled as ids are: `repr` would print the surrogates."""
    return f"'{escape_name(str(path))}'"


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun, such as `1 class` and `2 classes`."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{ending}"
