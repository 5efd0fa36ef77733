"""Folders in which one process works at a time."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from xcam.runs import files

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["claimed"]

# Who in this process works where, as process and thread: a lock is the process's, and lets all of
# its threads in; and whichever of them closes the file first gives it up.
_own: dict[Path, tuple[int, int]] = {}
_guard = threading.Lock()


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within the block nobody else works in a folder, which is made if there is none.

    The lock ends with the process, however that ends, and is not handed on to those that it forks.
    Without one goes on who has no right to write there, and who works on a system, or a disk, that
    has none. Blocks may be nested.

    Raises:
        OSError: Another process or thread works there, or the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, me = folder.resolve() / ".lock", (os.getpid(), threading.get_ident())
    with _guard:
        owner = _own.get(path)
        if owner and owner != me and owner[0] == me[0]:
            raise _busy(folder)
        _own[path] = me
    if owner == me:
        yield
        return
    try:
        with _locked(path):
            yield
    finally:
        del _own[path]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    process = os.getpid()
    with ExitStack() as opened:
        while fcntl:
            try:
                file = opened.enter_context(path.open("ab"))
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                    break  # whoever writes here all the same is told so, with the name of the file
                raise files.unwritable(path, error) from error
            if not _lock(file):
                raise _busy(path.parent)
            if _is_at(path, file):
                break  # else its last owner has removed it in between
        try:
            yield
        finally:
            if fcntl and process == os.getpid():  # not a fork
                with suppress(PermissionError):  # nothing could be written
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


def _lock(file: BinaryIO) -> bool:
    """Whether no other process has locked this file; this one has, from now on."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # any other: a disk without locks
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True
