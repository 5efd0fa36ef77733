"""The training loop: steps, epochs, and what is kept of them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from xcam._fit.counters import Order
from xcam._fit.counting import Counts, Run, count
from xcam._fit.folder import store_state
from xcam._fit.interruption import Stop, interruptible
from xcam._fit.learner import Learner
from xcam._fit.log import Board, csv
from xcam._fit.source import Source
from xcam._fit.sums import Means, Sums, means, runner_up
from xcam.checkpoints import save
from xcam.errors import DivergenceError
from xcam.runs.folder import RunFolder

__all__ = ["Standing", "Training"]

# Steps between two looks at the loss where looking makes a device, or other processes, wait.
_SELDOM = 16


@dataclass
class Standing:
    """How far a training is.

    Attributes:
        epoch: Epochs done.
        step: Steps done of the next one.
        sums: What they gave, see `Sums`.
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

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Standing:
        """Taken up from a stored state."""
        return cls(**{entry.name: state[entry.name] for entry in fields(cls)})


@dataclass(frozen=True, eq=False)
class Training:
    """A training with everything that it needs.

    Attributes:
        learner: What learns.
        source: The training images.
        order: In which they come.
        validation: The images by which the best epoch is chosen, if there are any.
        epochs: How many there shall be.
        standing: How far it is.
        folder: Where it keeps what it has; None keeps nothing.
        keep_every: Epochs between two nets that are kept beside the best and the last.
        save_minutes: Between two stored states within an epoch.
        progress: Whether to show progress bars.
    """

    learner: Learner
    source: Source
    order: Order
    validation: Source | None
    epochs: int
    standing: Standing
    folder: RunFolder | None
    keep_every: int | None
    save_minutes: float
    progress: bool
    best: dict[str, Tensor] = field(default_factory=dict)  # without a folder: the best net's state

    def finish(self, board: Board) -> None:
        """Trains from where it stands to the last epoch.

        Args:
            board: For its curves.

        Raises:
            DivergenceError: The loss is not finite; the state stored last is from before that.
            KeyboardInterrupt: Somebody asked for it; the state is stored.
        """
        at, share = self.standing, self.learner.share
        keys = self.order.keys(at.epoch, at.step, self.epochs, share)
        with interruptible() as stop:
            batches = self.source.batches(keys, self.order.seed, self.learner.place.pinned)
            while at.epoch < self.epochs:
                self._train(batches, _Look(self, board, stop))
                self._close(board)
        if stop.asked:
            raise KeyboardInterrupt("stopped after the last epoch, which is kept")

    def _train(self, batches: Iterator[tuple[Tensor, Tensor]], look: _Look) -> None:
        """Takes the steps that are left of an epoch."""
        at, steps, team = self.standing, self.order.steps, self.learner.place.team
        every = 1 if team.count == 1 and self.learner.place.device.type == "cpu" else _SELDOM
        # What the processes had counted when the state was stored is the main one's from then on.
        sums = Sums(runner_up(self.learner.classes), self.learner.place.device)
        if team.main:
            sums.start(at.sums)
        with self._bar() as bar:
            while at.step < steps:
                at.lr = self.learner.optimization.lr
                size = self.order.size(at.step)
                self.learner.step((at.epoch, at.step, steps), size, batches, sums)
                at.step += 1
                bar.update()
                if at.step % every == 0 or at.step == steps:
                    seen = look(sums)
                    bar.set_postfix_str(f"loss {seen.loss:.4g}, accuracy {seen.top1:.4g}", False)

    def _bar(self) -> tqdm[Any]:
        at = self.standing
        return tqdm(
            desc=f"epoch {at.epoch + 1}/{self.epochs}",
            initial=at.step,
            total=self.order.steps,
            disable=not (self.progress and self.learner.place.team.main),
        )

    def _close(self, board: Board) -> None:
        """Ends an epoch: measures, moves the schedule on, draws, keeps the net."""
        at, begun = self.standing, time.monotonic()
        self.check()
        self.learner.align()
        net = self.learner.net
        row = {"epoch": at.epoch + 1, "lr": at.lr, **_named("train", means(at.sums), self._k)}
        better = False
        if self.validation is not None:
            run = partial(self.learner.objective.measured, net, self.learner.decides)
            found = self.measured(net, self.validation, run).means
            if not math.isfinite(found.loss):
                raise self._diverged("the loss on the validation images")
            row |= _named("validation", found, self._k)
            best = at.history[at.best_epoch - 1] if at.best_epoch else row
            better = self._worth(row) >= self._worth(best)  # of equals the last
            if better:
                at.best_epoch = at.epoch + 1
        self.learner.optimization.passed("epoch")
        row["seconds"] = round(at.seconds + time.monotonic() - begun, 3)
        at.history.append(row)
        at.epoch, at.step, at.sums, at.seconds = at.epoch + 1, 0, [0.0] * 4, 0.0
        board.epoch(row, self.steps)  # before the state that counts it as drawn
        self._keep(net, better)

    def _worth(self, row: Mapping[str, Any]) -> float:
        """How good an epoch is, by its row in the log."""
        if self.learner.decides:
            return float(row["validation_accuracy"])
        return -float(row["validation_loss"])

    @property
    def steps(self) -> int:
        """How many steps are done, from the beginning."""
        return self.standing.epoch * self.order.steps + self.standing.step

    @property
    def _k(self) -> int:
        return runner_up(self.learner.classes)

    def measured(self, net: nn.Module, images: Source, run: Run | None = None) -> Counts:
        """What a net gives on images that it is not trained on."""
        share = self.learner.share
        return count(
            net,
            images,
            self.learner.classes,
            max(1, self.order.batch_size // (share.count * share.accumulate)),
            self.learner.place,
            run,
            self.progress,
            mixed=self.learner.objective.method is not None,
        )

    def _keep(self, net: nn.Module, better: bool) -> None:
        """Keeps the net at the end of an epoch, in files or, the best one, in memory."""
        at, folder = self.standing, self.folder
        if folder is None:
            if better:
                values = net.state_dict().items()
                self.best.update({name: value.detach().cpu().clone() for name, value in values})
            return
        if not self.learner.place.team.main:
            return
        names = ["last"]
        if self.keep_every and at.epoch % self.keep_every == 0:
            names.append(f"epoch_{at.epoch:04d}")
        for name in names:
            save(net, folder.path / f"{name}.safetensors")
        folder.write("log.csv", csv(at.history))
        self.store()
        if better:  # after the state that says so: a killed training makes up for it from there
            save(net, folder.path / "best.safetensors")

    def check(self) -> None:
        """Refuses a net that cannot be trained on.

        Raises:
            DivergenceError: Loss or weights are not finite.
        """
        if not math.isfinite(self.standing.sums[0]):
            raise self._diverged("the loss")
        weights = [w for w in self.learner.objective.net.parameters() if w.requires_grad]
        if not bool(torch.stack([weight.isfinite().all() for weight in weights]).all()):
            raise self._diverged("a weight")

    def _diverged(self, what: str) -> DivergenceError:
        at = self.standing
        return DivergenceError(
            f"{what} is not finite at epoch {at.epoch + 1}, step {at.step} (learning rate "
            f"{at.lr:g}); lower the learning rate, clip the gradient, or check the images"
        )

    def store(self) -> None:
        """Writes the state, as the main process, where there is a folder for it."""
        if self.folder is not None and self.learner.place.team.main:
            store_state(self.folder, {**asdict(self.standing), **self.learner.state()})


class _Look:
    """What is done between steps, now and then: read the sums, store the state, stop."""

    def __init__(self, training: Training, board: Board, stop: Stop) -> None:
        self.training, self.board, self.stop = training, board, stop
        self.stored = self.since = time.monotonic()
        self.before = list(training.standing.sums)

    def __call__(self, sums: Sums) -> Means:
        """The means of the epoch so far.

        All processes look at the same steps, and do the same about what they see.
        """
        training, at = self.training, self.training.standing
        now = time.monotonic()
        team = training.learner.place.team
        due = team.main and now - self.stored >= 60 * training.save_minutes
        *at.sums, due_anywhere, asked = sums.total(team, float(due), float(self.stop.asked))
        at.seconds += now - self.since
        self.since = now
        if not math.isfinite(at.sums[0]):
            training.check()
        latest = [new - old for new, old in zip(at.sums, self.before, strict=True)]
        self.board.step(means(latest), training.steps, at.lr)
        self.before = at.sums
        if due_anywhere or asked:
            training.check()
            training.store()
            self.stored = time.monotonic()
        if asked:
            raise KeyboardInterrupt(self._farewell())
        return means(at.sums)

    def _farewell(self) -> str:
        at = self.training.standing
        where = f"stopped at epoch {at.epoch + 1}, step {at.step}"
        if self.training.folder is None:
            return f"{where}; without out=… nothing is kept"
        return f"{where}, which is stored; the same call goes on"


def _named(part: str, found: Means, k: int) -> dict[str, float]:
    return {
        f"{part}_loss": found.loss,
        f"{part}_accuracy": found.top1,
        f"{part}_top{k}": found.topk,
    }
