"""Where a training stands: at its beginning, or where its folder says."""

from __future__ import annotations

import warnings

from torch import nn

from xcam._fit.folder import load_state
from xcam._fit.learner import Learner
from xcam._fit.loop import Standing
from xcam._fit.start import Start
from xcam.checkpoints import save
from xcam.errors import XcamWarning
from xcam.runs.folder import RunFolder

__all__ = ["taken_up"]


def taken_up(
    folder: RunFolder | None,
    start: Start,
    model: nn.Module,
    learner: Learner,
    epochs: int,
) -> Standing:
    """How far the training in a folder is, which the learner takes up.

    Args:
        folder: Which the main process has claimed; None for none.
        start: What the training begins with.
        model: The caller's.
        learner: At its beginning.
        epochs: How many there shall be.

    Raises:
        ValueError: Another training is there, or one with more epochs.
        FileFormatError: A damaged file.
        OSError: The folder cannot be written to.
    """
    if folder is None:
        return Standing()
    team = learner.place.team
    if team.main:
        folder.check_writable()
        folder.clean()
        folder.settle(start.said(model, learner.objective.method))
    team.meet()
    traces, state = start.traces(model), load_state(folder)
    if state is None:
        return Standing(start=traces)
    standing = Standing.of(state)
    if (standing.epoch, standing.step) > (epochs, 0):
        raise ValueError(
            f"{str(folder.path)!r} holds a training of {standing.epoch} epochs"
            f"{f' and {standing.step} steps' if standing.step else ''}, got epochs={epochs}; it "
            "cannot go back"
        )
    changed = [name for name, value in traces.items() if standing.start.get(name) != value]
    if changed:
        warnings.warn(
            f"the training in {str(folder.path)!r} goes on with what it has; what it began with "
            f"is not what is given now: {', '.join(changed)}",
            XcamWarning,
            stacklevel=3,
        )
    learner.restore(state)
    if team.main and (standing.epoch, standing.step) == (standing.best_epoch, 0):
        save(
            learner.net, folder.path / "best.safetensors"
        )  # it may have been killed before it kept that
    return standing
