"""The learner: objective, optimizer step and mutable state."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from xcam._fit.averaging import Averaging
from xcam._fit.counted import second_k
from xcam._fit.counting import add_batch, sum_over_processes
from xcam._fit.divisor import Divisor
from xcam._fit.items import check_labels
from xcam._fit.optimization import Optimization
from xcam._fit.order import Order, seed_all
from xcam._fit.own_loss import OwnLoss, check_loss, find_training_loss, has_own_loss
from xcam._fit.settings import Criterion, Runtime
from xcam.core import TrainableMethod, compute_class_loss, extract_logits, is_multi_label
from xcam.core.instantiate import check_names
from xcam.errors import ModelOutputError

__all__ = ["Learner", "Objective", "make_mixing"]

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

        A part's loss counts by its share of what the criterion divides the step by, that of its
        images or of their weights, so that the gradient is the step's, however it is cut into
        parts.

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
        divisor = torch.zeros((), device=self.runtime.device)
        added = sums if self.objective.divisor is None else torch.zeros_like(sums)
        for index, part in enumerate(parts):
            count = part.stop - part.start
            batch, labels = next(batches)
            check_labels(labels, self.num_classes)
            with self._exchange_gradients(is_last=index == len(parts) - 1):
                seed_all("step", order.seed, epoch, step, order.rank, index)
                labels = labels.to(self.runtime.device, non_blocking=True)
                loss, logits, weight = self._forward(self.runtime.move(batch), labels)
                if weight is not None and count:
                    divisor += weight
                # DDP averages over processes, so each part counts `num_processes` times.
                share = order.num_processes / images
                counted = count if weight is None or not count else weight
                self.optimization.backward(loss * (counted * share))
            mean = loss if counted is count else loss * (counted / count)
            add_batch(added, mean, logits, labels, count, second_k(self.num_classes))
        factor = self._rescale(divisor, images)
        if factor is not None:
            added[0] *= factor
            sums += added
        self.optimization.step(factor)
        if self.averaging is not None:
            self.averaging.update(epoch * order.steps + step + 1, self.objective.net)

    def _forward(
        self, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        mixed = (images, labels) if self.mixing is None else self.mixing(images, labels)
        with self.runtime.autocast():
            found: tuple[Tensor, Tensor | None, Tensor | None] = self.wrapped(*mixed)
        return found

    def _rescale(self, divisor: Tensor, images: int) -> Tensor | None:
        """Return the factor from a gradient that is divided by the images to the criterion's own.

        None where it is 1. What the whole step is divided by is known only after its last part.
        """
        if self.objective.divisor is None:
            return None
        total = sum_over_processes(divisor, self.runtime.processes)
        return images / (torch.ones_like(total) if self.objective.divisor.kind == "sum" else total)

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
        method: Whose head the net carries, if any, and whose loss it is, unless that is the
            logits' alone.
        criterion: Of logits (B, K) and labels, to the mean over the images; None is the net's own
            `training_loss`, or the cross-entropy.
        label_smoothing: Label smoothing of the cross-entropy.
        divisor: What the criterion divides by, where a step has parts for which that is not the
            number of their images.
        evaluation_divisor: The same of labels that are not mixed.
    """

    def __init__(
        self,
        net: nn.Module,
        method: TrainableMethod | None,
        criterion: Criterion | None,
        label_smoothing: float,
        divisor: Divisor | None = None,
        evaluation_divisor: Divisor | None = None,
    ) -> None:
        super().__init__()
        self.divisor, self.evaluation_divisor = divisor, evaluation_divisor
        self.net, self.method, self.label_smoothing = net, method, label_smoothing
        self.criterion = copy.deepcopy(criterion)  # a module of the caller's may change device

    def forward(
        self, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the loss, the logits (B, K), and what the loss is divided by; scalars.

        No logits if the method's loss has none, and no divisor if it is the number of images.

        Args:
            images: (B, C, H, W).
            labels: (B,) int64, (B, K) bool, or (B, K) shares of the classes in mixed images.

        Raises:
            ModelOutputError: The net's output is not one (B, K) tensor.
            TypeError: The loss of the method, or of the net, gives no pair.
            ValueError: The loss is no scalar.
        """
        logits: Tensor | None
        divided_by = None
        own = self._find_own_loss(self.net)
        if own is None:
            logits = self._call_net(images)
            loss, divided_by = self._compute_loss(logits, labels, self.divisor)
        else:
            loss, logits = own(images, labels)
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"the loss must be a scalar, the mean over the images, got {got}")
        return loss, None if logits is None else logits.detach(), divided_by

    def measure(
        self, net: nn.Module, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return loss, logits and divisor as `forward` of a net of the same structure in eval mode.

        Where the method's loss meets no logits of the images, they take one more pass.
        """
        own = self._find_own_loss(net)
        if own is None:
            logits = extract_logits(net(images), len(images))
            loss, divided_by = self._compute_loss(logits, labels, self.evaluation_divisor)
            return loss, logits, divided_by
        loss, met = own(images, labels)
        return loss, extract_logits(net(images), len(images)) if met is None else met, None

    def _find_own_loss(self, net: nn.Module) -> OwnLoss | None:
        """Return the loss that the method, or the net itself, brings; None for the criterion's."""
        method = self.method
        if method is not None and has_own_loss(method):
            return check_loss(f"loss of {method.spec.name}", partial(method.loss, net))
        if method is not None or self.criterion is not None:
            return None
        found = find_training_loss(net)
        return None if found is None else check_loss("training_loss of the model", found)

    def _compute_loss(
        self, logits: Tensor, labels: Tensor, divisor: Divisor | None
    ) -> tuple[Tensor, Tensor | None]:
        if self.criterion is None:
            return compute_class_loss(logits, labels, self.label_smoothing), None
        if is_multi_label(labels):
            labels = labels.to(logits.dtype)
        if divisor is None:
            return self.criterion(logits, labels), None
        divided_by = divisor.measure(logits, labels)
        if not bool(divided_by):  # the mean of nothing would be NaN, and so its gradient times 0
            return 0 * logits.sum(), divided_by
        return self.criterion(logits, labels), divided_by

    def _call_net(self, images: Tensor) -> Tensor:
        output = self.net(images)
        if any(name.startswith("aux_logits") for name in getattr(output, "_fields", ())):
            raise ModelOutputError(
                "in training the model gives the logits of auxiliary classifiers, too; make it "
                "without them: xcam.models.load(…, aux_logits=False)"
            )
        return extract_logits(output, len(images))


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
