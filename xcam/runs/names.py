"""Names of files that any file, table and terminal can hold."""

from __future__ import annotations

__all__ = ["escape_name"]


def escape_name(name: str) -> str:
    r"""Return a file's name with the bytes that are no UTF-8 spelled out, such as `caf\xe9.png`.

    Python holds such bytes as lone surrogates, which neither Parquet, JSON nor a terminal takes.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
