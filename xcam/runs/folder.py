"""A folder in which a resumable work keeps what it has done."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from xcam.errors import FileFormatError
from xcam.runs import files
from xcam.runs.manifest import encode_manifest, extend, list_differences, read_manifest
from xcam.sentences import escape_name

__all__ = ["CANNOT_LOCK", "RunFolder"]

# How opening or locking a file fails where nobody may write, and on file systems without locks.
CANNOT_LOCK = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOLCK,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
}
# Entries of a manifest that tell whose it is.
_KINDS = {"metrics": "an evaluation", "optimizer": "a training", "mask_eval": "a ROAR evaluation"}
_PATIENCE = 0.1  # seconds; an owner that has just ended may still be removing its lock file


@dataclass(frozen=True)
class RunFolder:
    """The folder of a work that can be stopped and resumed: its manifest, its lock, its files.

    A manifest, written before the work begins, says what the work is; the files that the work
    leaves say how much of it is done. Each file is written whole or not at all.

    Attributes:
        path: The folder.
        work: What the work is called in messages, such as `"training"`.
        products: Patterns of the files that exist only once some of the work is done, relative to
            the folder, such as `"rows/batch-*.parquet"`.
    """

    path: Path
    work: str
    products: tuple[str, ...]

    def create(self) -> None:
        """Create the folder if there is none.

        Raises:
            OSError: It cannot be created; a sentence that names the folder.
            ValueError: Its path is no UTF-8.
        """
        if escape_name(str(self.path)) != str(self.path):
            raise ValueError(
                f"the path of the folder {str(self.path)!r} is no UTF-8, and readers of Parquet "
                "and safetensors take no other; give another folder"
            )
        files.create_folder(self.path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes and threads from working in the folder during the block.

        The lock ends with the process, however that ends, and forked processes neither hold nor
        release it. Blocks of one thread may be nested. Where the folder cannot be written to, or
        the file system has no locks, the block runs without one.

        Raises:
            OSError: Another process or thread works there, or the folder cannot be created.
        """
        self.create()
        path, process = self.path.resolve() / ".lock", os.getpid()
        lock = FileLock(path, timeout=_PATIENCE, is_singleton=True, fallback_to_soft=False)
        is_nested = lock.is_locked
        try:
            lock.acquire(poll_interval=_PATIENCE / 10)
        except Timeout as error:
            raise OSError(
                f"another process works in {str(self.path)!r}; wait for its end, or give another "
                "folder"
            ) from error
        except OSError as error:
            if error.errno not in CANNOT_LOCK:
                raise files.describe_failed_write(path, error) from error
        try:
            yield
        finally:
            if os.getpid() == process:  # not in a fork, which leaves the block, too
                if not is_nested:
                    # Before the release: a file that is removed later may be somebody else's lock.
                    # Windows refuses while it is open, and filelock removes it there.
                    with suppress(OSError):
                        path.unlink(missing_ok=True)
                lock.release()

    @property
    def is_begun(self) -> bool:
        """Return whether some of the work is done."""
        return any(any(self.path.glob(pattern)) for pattern in self.products)

    def settle(
        self,
        settings: Mapping[str, Any],
        *,
        joining: bool = False,
        name: str = "manifest.json",
        growing: Collection[str] = (),
        free: Collection[str] = (),
    ) -> None:
        """Write the manifest, or compare it with the one that is there if the work has begun.

        The manifest of a work that never began is replaced, but nothing that is no manifest of the
        same kind.

        Args:
            settings: What must be the same for the work to be resumed: JSON.
            joining: Another process has written the manifest just now.
            name: Of the manifest's file.
            growing: Entries by label, to which a work that goes on may add some and name others no
                longer; those that are there are kept.
            free: Entries that may change.

        Raises:
            ValueError: It holds something else; each difference is named.
            FileFormatError: It is missing though it must be there, or damaged.
            OSError: The folder cannot be written to.
        """
        content = self.compare(settings, joining=joining, name=name, growing=growing, free=free)
        if content is not None:
            self.write(name, encode_manifest(content))

    def compare(
        self,
        settings: Mapping[str, Any],
        *,
        joining: bool = False,
        name: str = "manifest.json",
        growing: Collection[str] = (),
        free: Collection[str] = (),
    ) -> dict[str, Any] | None:
        """Refuse a folder of another work; return the manifest if it is to be written.

        See `settle` for arguments and errors.
        """
        path = self.path / name
        new: dict[str, Any] = json.loads(json.dumps(settings))
        old = read_manifest(path, self.work) if path.exists() else None
        is_begun = joining or self.is_begun
        if old is None and is_begun:
            raise FileFormatError(
                f"{str(self.path)!r} holds a begun {self.work} but no {name}; use another folder"
            )
        if old is None or (not is_begun and old != new and old.keys() == new.keys()):
            return new
        if 2 * len(old.keys() & new.keys()) < len(new):
            kind = next((title for key, title in _KINDS.items() if key in old), "another work")
            raise ValueError(
                f"{str(self.path)!r} is the folder of {kind}, not of a {self.work}; use another one"
            )
        if old.get("format") != new.get("format"):
            raise ValueError(
                f"{str(self.path)!r} holds another {self.work} (format: {old.get('format')} there, "
                f"{new.get('format')} now), which this version of xcam reads and does not go on "
                "with; use another folder"
            )
        there, now = extend(old, new, growing), extend(new, old, growing)
        found = list(list_differences(*(_leave_out(one, free) for one in (there, now))))
        if found:
            raise ValueError(
                f"{str(self.path)!r} holds another {self.work} ({'; '.join(found)}); use another "
                "folder, or the settings that are there"
            )
        return None if there == old and now == old else now

    def check_writable(self) -> None:
        """Refuse a folder that cannot be written to, before anything is computed for it.

        Raises:
            OSError: The folder is read-only, or the disk is full.
        """
        self.write(".trial", b"xcam")
        self.remove(".trial")

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """Return a block that fills a file of this name; see `files.writing`."""
        return files.writing(self.path / name)

    def write(self, name: str, content: bytes) -> None:
        """Write a file of this name whole or not at all.

        Raises:
            OSError: The folder cannot be written to; a sentence that names the file.
        """
        files.write(self.path / name, content)

    def remove(self, name: str) -> None:
        """Remove the file of this name if it exists."""
        (self.path / name).unlink(missing_ok=True)

    def clean(self, *subfolders: Path) -> None:
        """Remove what killed writers left in the folder and in subfolders; call it as the owner."""
        for folder in (self.path, *subfolders):
            files.clean(folder)


def _leave_out(content: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys}
