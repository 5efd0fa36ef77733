"""What watches a run: a terminal, where a bar moves, or a file, which takes lines."""

from __future__ import annotations

import sys

__all__ = ["is_live", "write_line"]


def is_live() -> bool:
    """Return whether somebody watches stderr: in a terminal, or in a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def write_line(text: str) -> None:
    """Write a line to stderr, above a bar if there is one."""
    from tqdm.auto import tqdm

    tqdm.write(text, file=sys.stderr)
