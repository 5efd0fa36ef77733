"""Names of files and folders that any table, terminal and disk can hold, and counts."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

__all__ = ["escape_name", "name_folder", "pluralize", "quote_path"]

_FOLDER = re.compile(r"[\w(][\w()=.,' -]{0,99}")


def escape_name(name: str) -> str:
    r"""Return a file's name with the bytes that are no UTF-8 spelled out, such as `caf\xe9.png`.

    Python holds such bytes as lone surrogates, which neither Parquet, JSON nor a terminal takes.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def name_folder(label: str) -> str:
    """Return a name for the folder of a label: itself, or a hash if no folder can be called so."""
    return label if _FOLDER.fullmatch(label) else sha256(label.encode()).hexdigest()[:16]


def quote_path(path: str | Path) -> str:
    """Return a path in quotes, spelled as ids are: `repr` would print the surrogates."""
    return f"'{escape_name(str(path))}'"


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun, such as `1 class` and `2 classes`."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{ending}"
