"""The files of a training: its state, its nets and its log."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from xcam.errors import FileFormatError
from xcam.runs.folder import RunFolder

__all__ = ["load_state", "make_folder", "store_state"]

_STATE = "training.pt"
_FORMAT = 2
_DAMAGE = (
    pickle.UnpicklingError,
    RuntimeError,
    AttributeError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
)


def make_folder(path: str | Path) -> RunFolder:
    """Return the folder of a training, which begins when its first state is stored.

    Raises:
        OSError: The folder cannot be made.
    """
    folder = RunFolder(Path(path), "training", (_STATE,))
    folder.create()
    return folder


def store_state(folder: RunFolder, state: Mapping[str, Any]) -> None:
    """Write the state of a training.

    Raises:
        OSError: The disk is full.
    """
    with folder.writing(_STATE) as partial:
        try:
            torch.save({"format": _FORMAT, **state}, partial)
        except RuntimeError as error:
            # torch turns an OSError of the writer into one of these.
            if "inline_container" not in str(error) and "Stream" not in str(error):
                raise
            raise OSError(str(error).splitlines()[0]) from error


def load_state(folder: RunFolder) -> dict[str, Any] | None:
    """Return the stored state of a training, on the CPU; None before it is stored first.

    Raises:
        FileFormatError: The file is damaged, or of another format.
    """
    path = folder.path / _STATE
    if not path.exists():
        return None
    with path.open("rb") as file:
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            written = int(state["format"])
        except (OSError, *_DAMAGE) as error:
            # EINVAL is torch's, seeking beyond the end of a cut file; others are the disk's.
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise FileFormatError(
                f"{str(path)!r} is damaged; remove it to start this training again"
            ) from error
    if written != _FORMAT:
        remedy = "upgrade xcam" if written > _FORMAT else "train anew, in another folder"
        raise FileFormatError(
            f"{str(path)!r} has format {written}, this xcam reads {_FORMAT}; {remedy}"
        )
    return state
