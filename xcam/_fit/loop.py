"""The training loop: steps, epochs, and what is kept of them."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from xcam._fit.counted import Counted, average_counts, average_sums
from xcam._fit.counting import MeasureLoss, count_correct, new_sums, sum_over_processes
from xcam._fit.divergence import LOOK_EVERY, make_divergence
from xcam._fit.learner import Learner
from xcam._fit.progress import Progress, describe_epoch, draw, store_state, write_log
from xcam._fit.source import Source
from xcam.checkpoints import save
from xcam.errors import DivergenceError
from xcam.runs.folder import RunFolder
from xcam.runs.terminal import is_live, write_line

__all__ = ["Training"]


@dataclass(eq=False)
class Training:
    """A training with everything that it needs.

    Attributes:
        learner: What learns.
        source: The training images.
        validation: The images by which the best epoch is chosen, if there are any.
        epochs: How many there shall be.
        progress: How far it is.
        folder: Where it keeps what it has; None keeps nothing.
        keep_every: Epochs between two nets that are kept beside the best and the last.
        save_minutes: Between two stored states within an epoch.
        show_progress: Whether to print a line an epoch, and to show progress bars where somebody
            watches.
        board: The writer of a TensorBoard, if there is one.
        best: Without a folder, the state of the best net.
    """

    learner: Learner
    source: Source
    validation: Source | None
    epochs: int
    progress: Progress
    folder: RunFolder | None
    keep_every: int | None
    save_minutes: float
    show_progress: bool
    board: Any = None
    best: dict[str, Tensor] = field(default_factory=dict)
    _stored_at: float = field(init=False)  # the last of these three: when, when, and which sums
    _looked_at: float = field(init=False)
    _drawn: list[float] = field(init=False)

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            DivergenceError: The loss is not finite; the state stored last is from before that.
            KeyboardInterrupt: Somebody asked for it; the state is stored.
        """
        progress, order, runtime = self.progress, self.learner.order, self.learner.runtime
        keys = order.iterate(progress.epoch, progress.step, self.epochs)
        with (
            _noting_interrupts() as is_interrupted,
            closing(self.source.load(keys, order.seed, runtime.pins_memory)) as batches,
        ):
            while progress.epoch < self.epochs:
                self._run_steps(batches, is_interrupted)
                self._end_epoch()
        if is_interrupted():
            raise KeyboardInterrupt("stopped after the last epoch, which is kept")

    def _run_steps(
        self, batches: Iterator[tuple[Tensor, Tensor]], is_interrupted: Callable[[], bool]
    ) -> None:
        """Take the steps that are left of an epoch."""
        progress, steps, runtime = self.progress, self.learner.order.steps, self.learner.runtime
        is_cheap = runtime.processes.count == 1 and runtime.device.type == "cpu"
        every = 1 if is_cheap else LOOK_EVERY
        sums = new_sums(runtime.device)
        if runtime.processes.is_main:  # the stored sums are those of all processes together
            sums += sums.new_tensor(progress.sums)
        self._stored_at = self._looked_at = time.monotonic()
        self._drawn = list(progress.sums)
        with self._open_bar() as bar:
            while progress.step < steps:
                progress.lr = self.learner.optimization.lr
                self.learner.step(progress.epoch, progress.step, batches, sums)
                progress.step += 1
                bar.update()
                if progress.step % every == 0 or progress.step == steps:
                    means = self._look(sums, is_interrupted())
                    shown = f"loss {means['loss']:.4g}, accuracy {means['accuracy']:.4g}"
                    bar.set_postfix_str(shown, False)

    def _open_bar(self) -> tqdm[Any]:
        return tqdm(
            desc=f"epoch {self.progress.epoch + 1}/{self.epochs}",
            initial=self.progress.step,
            total=self.learner.order.steps,
            leave=False,  # a line an epoch stays
            disable=not (self._is_shown() and is_live()),
        )

    def _is_shown(self) -> bool:
        return self.show_progress and self.learner.runtime.processes.is_main

    def _look(self, sums: Tensor, is_interrupted: bool) -> dict[str, float]:
        """Read the sums, draw them, store the state and stop where due; return the epoch's means.

        All processes look at the same steps, and do the same about what they see.
        """
        progress, processes = self.progress, self.learner.runtime.processes
        now = time.monotonic()
        is_due = processes.is_main and now - self._stored_at >= 60 * self.save_minutes
        values = torch.cat([sums, sums.new_tensor([float(is_due), float(is_interrupted)])])
        *progress.sums, due, interrupted = sum_over_processes(values, processes).tolist()
        progress.seconds += now - self._looked_at
        self._looked_at = now
        if not math.isfinite(progress.sums[0]):
            self._check_finite()
        latest = [new - old for new, old in zip(progress.sums, self._drawn, strict=True)]
        row = {"top1" if k == "accuracy" else k: v for k, v in self._average(latest).items()}
        draw(self.board, "step", {**row, "lr": progress.lr}, self.steps)
        self._drawn = progress.sums
        if due or interrupted:
            self._check_finite()
            self._store()
            self._stored_at = time.monotonic()
        if interrupted:
            raise KeyboardInterrupt(self._describe_stop())
        return self._average(progress.sums)

    def _average(self, sums: list[float]) -> dict[str, float]:
        return average_sums(sums, self.learner.num_classes)

    def _end_epoch(self) -> None:
        """Measure, move the schedule on, draw, and keep the net."""
        progress, begin = self.progress, time.monotonic()
        self._check_finite()
        self.learner.synchronize_buffers()
        net = self.learner.net
        row = {"epoch": progress.epoch + 1, "lr": progress.lr}
        row |= {f"train_{name}": mean for name, mean in self._average(progress.sums).items()}
        is_best = False
        if self.validation is not None:
            measure_loss = partial(self.learner.objective.measure, net)
            counted = self.measure(net, self.validation, measure_loss)
            if counted.unreadable is not None:
                what = f"the model's output for image {counted.unreadable} of validation"
                raise self._make_divergence(what)
            means = average_counts(counted)
            if not math.isfinite(means["loss"]):
                raise self._make_divergence("the loss on the validation images")
            row |= {f"validation_{name}": mean for name, mean in means.items()}
            best = progress.history[progress.best_epoch - 1] if progress.best_epoch else row
            is_best = self._rate(row) >= self._rate(best)  # of equals the last
            if is_best:
                progress.best_epoch = progress.epoch + 1
        self.learner.optimization.advance("epoch")
        row["seconds"] = round(progress.seconds + time.monotonic() - begin, 3)
        progress.history.append(row)
        if self._is_shown():
            write_line(describe_epoch(progress.history, self.epochs, is_best))
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.sums, progress.seconds = [0.0] * 4, 0.0
        # Before the state that counts it as drawn.
        draw(self.board, "epoch", {k: v for k, v in row.items() if k != "epoch"}, self.steps)
        if self.board is not None:
            self.board.flush()
        self._keep(net, is_best)

    def _rate(self, row: Mapping[str, Any]) -> float:
        """Return how good an epoch is, by its row in the log."""
        if self.learner.has_trained_logits:
            rate = float(row.get("validation_map", row["validation_accuracy"]))
            # Of images that show no class: equal to any other epoch, and worse than all rates.
            return -math.inf if math.isnan(rate) else rate
        return -float(row["validation_loss"])

    @property
    def steps(self) -> int:
        """Return how many steps are done, from the beginning."""
        return self.progress.epoch * self.learner.order.steps + self.progress.step

    def measure(
        self, net: nn.Module, images: Source, measure_loss: MeasureLoss | None = None
    ) -> Counted:
        """Return what a net gives on images that it is not trained on; see `count_correct`."""
        order = self.learner.order
        return count_correct(
            net,
            images,
            self.learner.num_classes,
            self.learner.runtime,
            batch_size=max(1, order.batch_size // order.parts),
            measure_loss=measure_loss,
            progress=self.show_progress,
            shuffle=self.learner.objective.method is not None,
        )

    def _keep(self, net: nn.Module, is_best: bool) -> None:
        """Keep the net at the end of an epoch, in files or, the best one, in memory."""
        progress, folder = self.progress, self.folder
        if folder is None:
            if is_best:
                values = net.state_dict().items()
                self.best.update({name: value.detach().cpu().clone() for name, value in values})
            return
        if not self.learner.runtime.processes.is_main:
            return
        save(net, folder.path / "last.safetensors")
        if self.keep_every and progress.epoch % self.keep_every == 0:
            save(net, folder.path / f"epoch_{progress.epoch:04d}.safetensors")
        write_log(folder, progress.history)
        self._store()
        # After the state that says so: `resume` makes up for it if the process is killed here.
        if is_best:
            save(net, folder.path / "best.safetensors")

    def _check_finite(self) -> None:
        """Refuse a net that cannot be trained on.

        Raises:
            DivergenceError: Loss or weights are not finite.
        """
        if not math.isfinite(self.progress.sums[0]):
            raise self._make_divergence("the loss or an output")
        weights = [w for w in self.learner.objective.net.parameters() if w.requires_grad]
        if not bool(torch.stack([weight.isfinite().all() for weight in weights]).all()):
            raise self._make_divergence("a weight")

    def _make_divergence(self, what: str) -> DivergenceError:
        return make_divergence(what, self.learner, self.progress, self.source, self.folder)

    def _store(self) -> None:
        """Write the state, as the main process, where there is a folder for it."""
        if self.folder is not None and self.learner.runtime.processes.is_main:
            store_state(self.folder, self.progress, self.learner)

    def _describe_stop(self) -> str:
        where = f"stopped at epoch {self.progress.epoch + 1}, step {self.progress.step}"
        if self.folder is None:
            return f"{where}; without out=… nothing is kept"
        return f"{where}, which is stored; the same call goes on"


@contextmanager
def _noting_interrupts() -> Iterator[Callable[[], bool]]:
    """Note a first Ctrl-C within the block, and let a second one interrupt at once.

    A net is neither what it was nor what it will be within a step. Outside of the main thread,
    which alone gets signals, and in a process that ignores Ctrl-C nothing changes.

    Yields:
        A function that returns whether Ctrl-C was noted.
    """
    is_noted = False
    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or before in (signal.SIG_IGN, None):
        yield lambda: False
        return

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal is_noted
        if is_noted:
            raise KeyboardInterrupt
        is_noted = True

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: is_noted
    finally:
        signal.signal(signal.SIGINT, before)
