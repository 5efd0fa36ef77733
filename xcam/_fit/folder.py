"""The folder of a training: its settings, where it stands, its nets and its log."""

from __future__ import annotations

import errno
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xcam.errors import FileFormatError
from xcam.runs import files, manifest

__all__ = ["Folder", "bytes_of"]

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


class Folder:
    """Where a training keeps what it has; whatever is in it was written whole.

    Args:
        path: The folder; it is made where there is none.

    Raises:
        OSError: It cannot be made, or written to.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise type(error)(f"cannot make the folder {str(path)!r}: {reason}") from error

    def open(self, settings: Mapping[str, Any], room: int) -> None:
        """Starts the folder for a training with these settings, or goes on with one, as the owner.

        Args:
            settings: What must be the same for a training to go on.
            room: Bytes that its files may take.

        Raises:
            OSError: It cannot be written to, or the disk has too little room.
            ValueError: Another training is there; each difference is named.
            FileFormatError: Its manifest is damaged or missing.
        """
        files.write(self.path / ".trial", b"xcam")
        (self.path / ".trial").unlink()
        files.clean(self.path)
        taken = sum(file.stat().st_size for file in self.path.iterdir() if file.is_file())
        free = shutil.disk_usage(self.path).free
        if free + taken < room:
            raise OSError(
                f"the disk of {str(self.path)!r} has {_size(free)} left, and this training may "
                f"write {_size(room - taken)}; make room, or give another folder"
            )
        path = self.path / "manifest.json"
        manifest.settle(path, settings, self.begun, "training", "training.pt")

    @property
    def begun(self) -> bool:
        """Whether some of a training is kept."""
        return (self.path / "training.pt").exists()

    @property
    def best(self) -> Path:
        """The net of the best epoch so far."""
        return self.path / "best.safetensors"

    def keep(self, net: nn.Module, name: str) -> None:
        """Writes a net as `NAME.safetensors`."""
        from xcam.checkpoints import save

        save(net, self.path / f"{name}.safetensors")

    def remove(self, name: str) -> None:
        """Takes a file of this name away, if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def write(self, name: str, content: bytes) -> None:
        """Writes a file of this name."""
        files.write(self.path / name, content)

    def store(self, state: Mapping[str, Any]) -> None:
        """Writes where a training stands.

        Raises:
            OSError: The disk is full.
        """
        with files.writing(self.path / "training.pt") as partial:
            try:
                torch.save({"format": _FORMAT, **state}, partial)
            except RuntimeError as error:
                if "inline_container" not in str(error) and "Stream" not in str(error):
                    raise
                # What torch makes of an OSError.
                raise OSError(str(error).splitlines()[0]) from error

    def stored(self) -> dict[str, Any] | None:
        """Where the training stands, on the CPU; None if it is at its beginning.

        Raises:
            FileFormatError: The file is damaged, or of another format.
        """
        path = self.path / "training.pt"
        if not path.exists():
            return None
        with path.open("rb") as file:
            try:
                state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
                written = int(state["format"])
            except (OSError, *_DAMAGE) as error:
                if isinstance(error, OSError) and error.errno != errno.EINVAL:
                    raise  # of the disk; EINVAL is torch's, seeking beyond what is left of a file
                raise FileFormatError(
                    f"{str(path)!r} is damaged; remove it to start this training again"
                ) from error
        if written != _FORMAT:
            remedy = "upgrade xcam" if written > _FORMAT else "train anew, in another folder"
            raise FileFormatError(
                f"{str(path)!r} has format {written}, this xcam reads {_FORMAT}; {remedy}"
            )
        return state


def bytes_of(net: nn.Module) -> int:
    """What a net's parameters and buffers take."""
    tensors = [*net.parameters(), *net.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
