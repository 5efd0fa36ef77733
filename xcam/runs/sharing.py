"""Work that processes share through a folder, also on several machines: each claims jobs by lock.

A job is done when its product is there. The lock of a process that dies is free at once, and its
job is anybody's again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from filelock import FileLock, Timeout

from xcam.runs import files
from xcam.runs.folder import CANNOT_LOCK

__all__ = ["Job", "claim", "share_folder", "share_jobs"]

J = TypeVar("J", bound="Job")

_SHORTEST, _LONGEST = 0.05, 5.0  # seconds between two looks at what others are doing


@dataclass(frozen=True)
class Job:
    """A part of a work.

    Attributes:
        product: The file that it ends with, written whole or not at all.
    """

    product: Path

    @property
    def lock(self) -> Path:
        """Return the file that is locked by who does it."""
        return self.product.with_name(f".{self.product.stem}.lock")

    @property
    def is_done(self) -> bool:
        """Return whether somebody has done it."""
        return self.product.exists()


@contextmanager
def claim(path: Path, timeout: float = 0.0) -> Iterator[bool]:
    """Lock a file that stands for a job; give whether that succeeded within so many seconds.

    On file systems without locks it always does.

    Args:
        path: The lock file, whose folder exists.
        timeout: How long to wait for it; -1 for as long as it takes.

    Raises:
        OSError: The folder cannot be written to.
    """
    lock, process, is_locked = FileLock(path, fallback_to_soft=False), os.getpid(), True
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        is_locked = False
    except OSError as error:
        if error.errno not in CANNOT_LOCK:
            raise files.describe_failed_write(path, error) from error
    try:
        yield is_locked
    finally:
        if is_locked and os.getpid() == process:  # not in a fork, which leaves the block, too
            # Whoever has opened the removed file, and locks it now, finds the job done.
            with suppress(OSError):
                path.unlink(missing_ok=True)
            lock.release()


@contextmanager
def share_folder(
    folder: Path, settle: Callable[[bool], None], jobs: Sequence[str]
) -> Iterator[None]:
    """Show others that somebody works in a folder until the block ends, or the process dies.

    Who comes when nobody else is there removes what killed processes left.

    Args:
        folder: The folder, which exists.
        settle: Called before the block, in one process at a time, with whether others work there.
        jobs: The names of its folders in which jobs have their products.
    """
    with ExitStack() as stack:
        with claim(folder / ".manifest.lock", timeout=-1):
            is_shared = any(_is_locked(path) for path in folder.glob(".worker-*.lock"))
            settle(is_shared)
            if not is_shared:
                files.clean(folder)
                for name in jobs:
                    _clean(folder / name)
            stack.enter_context(claim(folder / f".worker-{uuid4().hex}.lock"))
        yield


def _is_locked(path: Path) -> bool:
    """Return whether a process holds a lock file; one that nobody holds is removed."""
    with claim(path) as is_free:
        return not is_free


def _clean(folder: Path) -> None:
    """Remove partial files, and the locks of jobs, from a folder and all folders in it."""
    for inner in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        files.clean(inner)
        for lock in inner.glob(".*.lock"):
            lock.unlink(missing_ok=True)


def share_jobs(
    jobs: Sequence[J],
    work: Callable[[list[J]], None],
    together: int = 1,
    others: bool = True,
) -> None:
    """Run all jobs that are not done and that nobody else does; return when all are done.

    Args:
        jobs: In the order in which they are tried.
        work: Runs some of them, and writes their products.
        together: How many it is given at most.
        others: Whether to wait for jobs that others do, and to take over those that they leave.
    """
    pause = _SHORTEST
    while missing := [job for job in jobs if not job.is_done]:
        with ExitStack() as stack:
            claimed: list[J] = []
            for job in missing:
                files.create_folder(job.lock.parent)
                is_mine = stack.enter_context(claim(job.lock))
                if is_mine and not job.is_done:
                    claimed.append(job)
                if len(claimed) == together:
                    break
            if claimed:
                work(claimed)
        if claimed:
            pause = _SHORTEST
        elif not others:
            return
        else:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)
