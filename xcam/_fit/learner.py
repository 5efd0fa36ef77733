"""The learner: objective, optimizer step and mutable state."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from xcam._fit.counting import add_batch, second_k
from xcam._fit.optimization import Optimization
from xcam._fit.order import Order, seed_all
from xcam._fit.settings import Criterion, Runtime, check_labels
from xcam.core import TrainableMethod, extract_logits
from xcam.core.instantiate import check_names, check_number
from xcam.errors import ModelOutputError

__all__ = ["Averaging", "Learner", "Objective", "make_mixing"]

Mixing: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Learner:
    """What learns, and how.

    Attributes:
        objective: The loss, around the net.
        wrapped: The objective whose gradients the processes average; itself if there is one.
        optimization: Of the net's parameters.
        averaging: Of its weights, if they are averaged.
        mixing: Of each batch, if it is mixed.
        num_classes: Of the logits.
        has_trained_logits: Whether the logits depend on anything that learns, so that accuracy
            tells epochs apart.
        runtime: Where and how the net runs.
        order: Of the images; says which parts of a step are this process's.
    """

    objective: Objective
    wrapped: nn.Module
    optimization: Optimization
    averaging: Averaging | None
    mixing: Mixing | None
    num_classes: int
    has_trained_logits: bool
    runtime: Runtime
    order: Order

    @property
    def net(self) -> nn.Module:
        """Return the net as it would be used now: with averaged weights if they are averaged."""
        net = self.objective.net
        return net if self.averaging is None else self.averaging.get_net(net)

    def step(
        self, epoch: int, step: int, batches: Iterator[tuple[Tensor, Tensor]], sums: Tensor
    ) -> None:
        """Take one step of the optimiser.

        A part's loss counts by its share of the step's images, so that the gradient is that of
        their mean, however they are cut into parts.

        Args:
            epoch: Counted from 0.
            step: Of the epoch, counted from 0.
            batches: The parts of this process come next.
            sums: Where loss and right answers are added, see `new_sums`.

        Raises:
            ValueError: Labels that are no classes of the net.
        """
        self.objective.train()
        order, images = self.order, self.order.count_images(step)
        parts = order.split(images)
        for index, part in enumerate(parts):
            count = part.stop - part.start
            batch, labels = next(batches)
            check_labels(labels, self.num_classes)
            with self._exchange_gradients(is_last=index == len(parts) - 1):
                seed_all("step", order.seed, epoch, step, order.rank, index)
                labels = labels.to(self.runtime.device, non_blocking=True)
                loss, logits = self._forward(self.runtime.move(batch), labels)
                # DDP averages over processes, so each part counts `num_processes` times.
                self.optimization.backward(loss * (count * order.num_processes / images))
            add_batch(sums, loss, logits, labels, count, second_k(self.num_classes))
        self.optimization.step()
        if self.averaging is not None:
            self.averaging.update(epoch * order.steps + step + 1, self.objective.net)

    def _forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        mixed = (images, labels) if self.mixing is None else self.mixing(images, labels)
        with self.runtime.autocast():
            found: tuple[Tensor, Tensor | None] = self.wrapped(*mixed)
        return found

    def _exchange_gradients(self, is_last: bool) -> AbstractContextManager[object]:
        """Return a block in which processes exchange gradients only for the last part of a step."""
        if is_last or not isinstance(self.wrapped, DistributedDataParallel):
            return nullcontext()
        block: AbstractContextManager[object] = self.wrapped.no_sync()
        return block

    @torch.no_grad()
    def synchronize_buffers(self) -> None:
        """Give all processes the main one's buffers: each has statistics of its own images."""
        if self.order.num_processes > 1:
            for buffer in self.net.buffers():
                torch.distributed.broadcast(buffer, 0)

    def get_state(self) -> dict[str, Any]:
        """Return what must be restored for the next step to be the same."""
        return {
            "net": self.objective.net.state_dict(),
            "average": None if self.averaging is None else self.averaging.average.state_dict(),
            **self.optimization.get_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_state` returned."""
        self.objective.net.load_state_dict(state["net"])
        if self.averaging is not None:
            self.averaging.average.load_state_dict(state["average"])
        self.optimization.restore(state)


class Objective(nn.Module):
    """The loss of a batch, and the logits that were met on the way.

    Args:
        net: The classifier that is trained.
        method: Whose loss it is, where the net carries the head of one.
        criterion: Of logits (B, K) and labels, to the mean over the images; None is the
            cross-entropy.
        label_smoothing: Label smoothing of the cross-entropy.
    """

    def __init__(
        self,
        net: nn.Module,
        method: TrainableMethod | None,
        criterion: Criterion | None,
        label_smoothing: float,
    ) -> None:
        super().__init__()
        self.net, self.method, self.label_smoothing = net, method, label_smoothing
        self.criterion = copy.deepcopy(criterion)  # a module of the caller's may change device

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the loss, a scalar, and the logits (B, K); None if the method's loss has none.

        Args:
            images: (B, C, H, W).
            labels: (B,) int64, or (B, K) shares of the classes in mixed images.

        Raises:
            ModelOutputError: The net's output is not one (B, K) tensor.
            TypeError: The method's loss gives no pair.
            ValueError: The loss is no scalar.
        """
        loss, logits = (
            self._call_net(images, labels)
            if self.method is None
            else _call_method(self.method, self.net, images, labels)
        )
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"the loss must be a scalar, the mean over the images, got {got}")
        return loss, None if logits is None else logits.detach()

    def measure(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, and the logits (B, K), of a net with the same structure in eval mode.

        Where the method's loss meets no logits of the images, they take one more pass.
        """
        if self.method is None:
            logits = extract_logits(net(images), len(images))
            return self._compute_loss(logits, labels), logits
        loss, met = _call_method(self.method, net, images, labels)
        return loss, extract_logits(net(images), len(images)) if met is None else met

    def _compute_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.criterion is not None:
            return self.criterion(logits, labels)
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def _call_net(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        output = self.net(images)
        if any(name.startswith("aux_logits") for name in getattr(output, "_fields", ())):
            raise ModelOutputError(
                "in training the model gives the logits of auxiliary classifiers, too; make it "
                "without them: xcam.models.load(…, aux_logits=False)"
            )
        logits = extract_logits(output, len(images))
        return self._compute_loss(logits, labels), logits


def _call_method(
    method: TrainableMethod, net: nn.Module, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return a method's loss, and the logits that it met, checked."""
    found = method.loss(net, images, labels)
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(
            f"loss of {method.spec.name} must return the loss and the logits of net(images), or "
            f"None in place of the logits, got {type(found).__name__}"
        )
    loss, logits = found
    return loss, None if logits is None else extract_logits(logits, len(images))


class Averaging:
    """The exponential moving average a ← decay · a + (1 − decay) · w of a net's weights.

    It is updated every few steps and starts at the first w. Buffers such as running statistics are
    averaged, too; those of whole numbers, such as indices and counts, are the net's.

    Args:
        net: Whose parameters and buffers w are averaged.
        settings: `"decay"`, in [0, 1), and `"every"`, in steps (1).

    Raises:
        TypeError: Settings of other names or kinds.
        ValueError: Values out of their range.
    """

    def __init__(self, net: nn.Module, settings: Mapping[str, Any]) -> None:
        if not isinstance(settings, Mapping):
            raise TypeError(f"ema must be a mapping such as {{'decay': 0.999}}, got {settings!r}")
        check_names("ema", settings, ["decay", "every"])
        decay, every = settings.get("decay", 0.999), settings.get("every", 1)
        check_number("ema: decay", decay)
        if not 0 <= decay < 1:
            raise ValueError(f"ema: decay must be at least 0 and below 1, got {decay!r}")
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"ema: every must be a positive number of steps, got {every!r}")
        self.every = every
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(net, multi_avg_fn=update, use_buffers=True)

    def update(self, step: int, net: nn.Module) -> None:
        """Include the net's weights after a step, counted from 1, if it is one of those."""
        if step % self.every == 0:
            self.average.update_parameters(net)
            # AveragedModel averages whole numbers as well, and rounds them.
            for mean, buffer in zip(self.average.module.buffers(), net.buffers(), strict=True):
                if not (buffer.is_floating_point() or buffer.is_complex()):
                    mean.copy_(buffer)

    def get_net(self, net: nn.Module) -> nn.Module:
        """Return the averaged net; before the first update, the net itself."""
        averaged: nn.Module = self.average.module
        return averaged if int(self.average.n_averaged) else net


def make_mixing(mix: Mapping[str, float], num_classes: int) -> Mixing | None:
    """Return what mixes images (B, C, H, W) and labels (B,) into images and class shares (B, K).

    Args:
        mix: The α of `"mixup"` (Zhang et al., 2018), of `"cutmix"` (Yun et al., 2019), or of both;
            of several one is drawn at random a batch. Empty for none.
        num_classes: K.

    Raises:
        TypeError: `mix` is no mapping, or holds another name.
        ValueError: An α is not above 0.
    """
    if not isinstance(mix, Mapping):
        raise TypeError(f"mix must be a mapping such as {{'mixup': 0.2}}, got {mix!r}")
    check_names("mix", mix, ["mixup", "cutmix"])
    for name, alpha in mix.items():
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not alpha > 0:
            raise ValueError(f"mix: {name} must be a number above 0, got {alpha!r}")
    if not mix:
        return None
    from torchvision.transforms import v2

    kinds = {"mixup": v2.MixUp, "cutmix": v2.CutMix}
    each = [kinds[name](alpha=float(alpha), num_classes=num_classes) for name, alpha in mix.items()]
    choice: Mixing = v2.RandomChoice(each) if len(each) > 1 else each[0]
    return choice
