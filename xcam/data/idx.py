"""The idx files of MNIST and its kin."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from xcam.errors import FileFormatError

__all__ = ["find_idx", "read_idx"]

_BYTES = b"\0\0\x08"  # what the file of an array of unsigned bytes begins with


def find_idx(folders: Iterable[Path], name: str) -> Path:
    """The file of a name, or gzipped with `.gz` behind it, in the first folder that has it.

    Raises:
        FileNotFoundError: None has it.
    """
    tried = [folder / file for folder in folders for file in (name, f"{name}.gz")]
    for path in tried:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no {name} or {name}.gz in {' or '.join(repr(str(path.parent)) for path in tried[::2])}; "
        "give download=True to fetch it"
    )


def read_idx(path: Path, axes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The array of unsigned bytes that a file holds, gzipped or not.

    The file is two zero bytes, 8 for unsigned bytes, the number of axes, the length of each as a
    big-endian int of four bytes, and the values.

    Raises:
        FileFormatError: The file holds something else, or not all of it.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = bytearray(file.read())  # writable, as torch wants its arrays
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileFormatError(f"{str(path)!r} cannot be unzipped: {error}") from error
    start = 4 + 4 * axes
    if content[:4] != _BYTES + bytes([axes]) or len(content) < start:
        raise FileFormatError(f"{str(path)!r} is no idx file of bytes with {axes} axes")
    shape = struct.unpack(f">{axes}I", content[4:start])
    if len(content) != start + math.prod(shape):
        raise FileFormatError(
            f"{str(path)!r} should hold {' × '.join(map(str, shape))} bytes, and holds "
            f"{len(content) - start}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
