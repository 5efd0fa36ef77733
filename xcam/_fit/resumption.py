"""Where a training stands: at its beginning, or where its folder says."""

from __future__ import annotations

import warnings

from torch import nn

from xcam._fit.folder import Folder, bytes_of
from xcam._fit.learner import Learner
from xcam._fit.loop import Standing
from xcam._fit.start import Start
from xcam.errors import XcamWarning

__all__ = ["taken_up"]

# A training's state holds the net, up to two moments of each parameter, and their average.
_NETS_A_STATE = 4


def taken_up(
    folder: Folder | None,
    start: Start,
    model: nn.Module,
    learner: Learner,
    epochs: int,
    keep_every: int | None,
) -> Standing:
    """How far the training in a folder is, which the learner takes up.

    Args:
        folder: Which the main process has claimed; None for none.
        start: What the training begins with.
        model: The caller's.
        learner: At its beginning.
        epochs: How many there shall be.
        keep_every: Epochs between nets that are kept.

    Raises:
        ValueError: Another training is there, or one with more epochs.
        FileFormatError: A damaged file.
        OSError: There is too little room.
    """
    if folder is None:
        return Standing()
    team, net, method = learner.place.team, learner.objective.net, learner.objective.method
    if team.main:
        kept = 2 + epochs // keep_every if keep_every else 2
        room = bytes_of(net) * (kept + 1 + 2 * _NETS_A_STATE)  # each is there twice while written
        folder.open(start.said(model, method), room)
    team.meet()
    traces, state = start.traces(model), folder.stored()
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
        folder.keep(learner.net, "best")  # it may have been killed before it kept that
    return standing
