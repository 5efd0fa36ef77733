"""Files of `torch.save`: written so that the disk's errors are told, and checked before reading."""

from __future__ import annotations

import errno
import io
import zipfile
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from xcam.errors import FileFormatError

__all__ = ["check_archive", "write_pickle"]


def write_pickle(partial: Path, content: object) -> None:
    """Write what `torch.save` can, in a file that `check_archive` can check.

    Raises:
        OSError: The file cannot be written.
    """
    with partial.open("wb", buffering=0) as file:
        writer = _Writer(file)
        try:
            torch.save(content, cast("IO[bytes]", writer))
        except RuntimeError as error:  # torch's, which says nothing of the disk
            if writer.error is None:
                raise
            raise writer.error from error


class _Writer(io.RawIOBase):
    """A file that keeps the error that writing to it raised."""

    def __init__(self, file: io.FileIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:  # noqa: ANN401 - as typed by io
        try:
            left = memoryview(content).cast("B")
            total = len(left)
            while left:
                left = left[self.file.write(left) :]
        except OSError as error:
            self.error = error
            raise
        return total

    def writable(self) -> bool:
        """Return True."""
        return True


def check_archive(file: BinaryIO) -> None:
    """Refuse an archive by `torch.save` that is not what was written; torch does not look.

    Raises:
        FileFormatError: A content is not that of its CRC-32, or it is no archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # that of seeking beyond a cut file's end
            raise
        raise FileFormatError(str(error)) from error
    except Exception as error:  # damaged bytes may raise any error
        raise FileFormatError(str(error)) from error
    if damaged is not None:
        raise FileFormatError(f"the checksum of {damaged!r} is that of other contents")
    file.seek(0)
