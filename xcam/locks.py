"""Folders in which one process works at a time."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from xcam import files

__all__ = ["claimed"]

# What this process has locked, and in which thread: to lock a file again would give it up.
_own: dict[Path, int] = {}


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within the block no other process or thread works in a folder, made if there is none.

    The lock ends with the process, however that ends, and is not handed on to those that it forks.
    Where the system has no such locks, the block runs without one. Blocks may be nested.

    Raises:
        OSError: Another one works there, or the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / ".lock"
    owner = _own.get(path)
    if owner == threading.get_ident():
        yield
        return
    if owner is not None:
        raise _busy(folder)
    with ExitStack() as opened:
        while True:
            try:
                file = opened.enter_context(path.open("ab"))
            except OSError as error:
                raise files.unwritable(path, error) from error
            if not _locked(file):
                raise _busy(folder)
            if _is_at(path, file):
                break  # else its last owner has removed it in between
        _own[path] = threading.get_ident()
        try:
            yield
        finally:
            del _own[path]
            path.unlink(missing_ok=True)


def _busy(folder: Path) -> OSError:
    return OSError(
        f"another process works in {str(folder)!r}; wait for its end, or give another folder"
    )


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _locked(file: BinaryIO) -> bool:
    """Whether no other process has locked this file; this one has, from now on."""
    try:
        import fcntl
    except ImportError:  # on Windows
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # any other: a disk without locks
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True
