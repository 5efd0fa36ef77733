"""How far a training is, and what it keeps of that in its folder: its state and its log."""

from __future__ import annotations

import errno
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from xcam._fit.learner import Learner
from xcam.checkpoints import save
from xcam.errors import FileFormatError, warn
from xcam.runs.archives import check_archive, write_pickle
from xcam.runs.folder import RunFolder

__all__ = [
    "CLASSES",
    "Progress",
    "describe_epoch",
    "draw",
    "make_folder",
    "open_board",
    "resume",
    "store_state",
    "write_log",
]

CLASSES = "names of the classes"  # the key in what a training began with
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


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        epoch: Epochs done.
        step: Steps done of the next one.
        sums: What they gave, see `new_sums`.
        lr: The learning rate of the last of them.
        seconds: What they took.
        history: A row an epoch, as in `log.csv`.
        best_epoch: By the validation images; 0 if there is none yet.
        start: What the training began with, in words and hashes.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    lr: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    start: dict[str, str] = field(default_factory=dict)


def describe_epoch(history: Sequence[Mapping[str, Any]], epochs: int, is_best: bool) -> str:
    """Return a line about the last epoch: what was measured, and how much time is left.

    Args:
        history: A row an epoch, as in `log.csv`.
        epochs: How many there shall be.
        is_best: Whether it is the best so far, by the validation images.
    """
    row, number = history[-1], len(history)
    parts = []
    for kind in ("train", "validation"):
        means = [
            f"{name.removeprefix(f'{kind}_')} {value:.4g}"
            for name, value in row.items()
            if name.startswith(f"{kind}_")
        ]
        if means:
            parts.append(f"{kind} {', '.join(means)}")
    parts += ["the best"] * is_best
    seconds = sum(each["seconds"] for each in history) / number
    left = timedelta(seconds=math.ceil(seconds * (epochs - number)))
    parts.append(f"{row['seconds']:.3g} s" + (f", {left} left" if number < epochs else ""))
    return f"epoch {number}/{epochs}: {'; '.join(parts)}"


def make_folder(path: str | Path) -> RunFolder:
    """Return the folder of a training, which has begun when its first state is stored.

    Raises:
        OSError: The folder cannot be made.
    """
    folder = RunFolder(Path(path), "training", (_STATE,))
    folder.create()
    return folder


def resume(
    folder: RunFolder,
    learner: Learner,
    epochs: int,
    settings: Mapping[str, Any],
    start: dict[str, str],
) -> Progress:
    """Restore the learner to where the training in a folder was left, or begin one there.

    Args:
        folder: Which the main process has locked.
        learner: At its beginning.
        epochs: How many there shall be.
        settings: What must be the same for the training to go on.
        start: What the training begins with; a difference is warned of.

    Raises:
        ValueError: Another training is there, or one with more epochs.
        FileFormatError: A damaged file.
        OSError: The folder cannot be written to.
    """
    processes = learner.runtime.processes
    if processes.is_main:
        folder.check_writable()
        folder.clean()
        folder.settle(settings)
    processes.wait()
    state = _load_state(folder)
    if state is None:
        return Progress(start=start)
    progress = Progress(**{entry.name: state[entry.name] for entry in fields(Progress)})
    if (progress.epoch, progress.step) > (epochs, 0):
        raise ValueError(
            f"{str(folder.path)!r} holds a training of {progress.epoch} epochs"
            f"{f' and {progress.step} steps' if progress.step else ''}, got epochs={epochs}; "
            "epochs must be at least that many"
        )
    begun = progress.start.get(CLASSES, start[CLASSES])  # older files do not tell
    if begun != start[CLASSES]:
        raise ValueError(
            f"{str(folder.path)!r} holds a training of the classes {begun or 'without names'}, and "
            f"now they are {start[CLASSES] or 'without names'}; use another folder, or the images "
            "and the model that it began with"
        )
    changed = [name for name, value in start.items() if progress.start.get(name, value) != value]
    if changed:
        warn(
            f"the training in {str(folder.path)!r} goes on with what it has; what it began with "
            f"is not what is given now: {', '.join(changed)}",
        )
    learner.restore(state)
    if processes.is_main and (progress.epoch, progress.step) == (progress.best_epoch, 0):
        save(learner.net, folder.path / "best.safetensors")  # killed before it was written
    return progress


def store_state(folder: RunFolder, progress: Progress, learner: Learner) -> None:
    """Write all that a training needs to go on.

    Raises:
        OSError: The disk is full.
    """
    state = {"format": _FORMAT, **asdict(progress), **learner.get_state()}
    with folder.writing(_STATE) as partial:
        write_pickle(partial, state)


def _load_state(folder: RunFolder) -> dict[str, Any] | None:
    """Return the stored state, on the CPU; None before the first is stored.

    Raises:
        FileFormatError: The file is damaged, or of another format.
    """
    path = folder.path / _STATE
    if not path.exists():
        return None
    with path.open("rb") as file:
        try:
            check_archive(file)
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


def write_log(folder: RunFolder, history: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of a training as `log.csv`, a line an epoch."""
    import pandas as pd

    folder.write("log.csv", pd.DataFrame(history).to_csv(index=False).encode())


@contextmanager
def open_board(path: str | Path | None, steps: int) -> Iterator[Any]:
    """Open a TensorBoard's writer for the block; None without a path.

    Args:
        path: The folder of the curves.
        steps: How many are done; what a training that was killed drew beyond them is dropped.

    Raises:
        ImportError: TensorBoard is not installed; the message has the command.
    """
    if path is None:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("board_path needs TensorBoard: pip install 'xcam[train]'") from error
    with SummaryWriter(str(path), purge_step=steps + 1) as writer:
        yield writer


def draw(writer: Any, part: str, values: Mapping[str, float], step: int) -> None:  # noqa: ANN401
    """Draw values at a number of steps, as `part/name`; without a writer do nothing."""
    if writer is not None:
        for name, value in values.items():
            writer.add_scalar(f"{part}/{name}", value, step)
