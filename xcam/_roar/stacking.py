"""Nets of one shape, trained at once as one stacked net: each with its own data, order and seed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from xcam._fit.items import check_labels
from xcam._fit.learner import make_mixing
from xcam._fit.optimization import Optimization
from xcam._fit.order import list_evaluation_batches, seed_all
from xcam._fit.settings import describe_structure
from xcam._fit.source import Source
from xcam._fit.start import Start
from xcam.core import find_unreadable

__all__ = ["STACKABLE", "Stack", "StackError", "Trained", "count_answers", "train_stack"]

STACKABLE = {
    "epochs",
    "batch_size",
    "optimizer",
    "schedule",
    "groups",
    "label_smoothing",
    "mix",
    "drop_last",
    "workers",
    "precision",
}
"""The settings of `fit` with which nets can be trained as a stack."""

_ELEMENTWISE = {
    "ASGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
}
_NEAR = 1e-3  # of the logits' range: float32 in another order of sums, not another function


class StackError(Exception):
    """Nets that cannot be trained as a stack; the message says why."""


class Stack:
    """Nets of one structure as one module, whose parameters and buffers have an axis of nets.

    Args:
        nets: The nets, in train mode or not; they are copied.

    Raises:
        StackError: They are not of one structure.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        if len({tuple(describe_structure(net).values()) for net in nets}) > 1:
            raise StackError("the nets have different structures")
        self.nets = list(nets)
        self.template = copy.deepcopy(nets[0])
        # A module with the same names, so that groups of parameters are chosen as for one net.
        self.module = copy.deepcopy(nets[0])
        self._buffers = {
            name: torch.stack([dict(net.named_buffers())[name] for net in nets])
            for name, _ in nets[0].named_buffers()
        }
        stacked: dict[nn.Parameter, nn.Parameter] = {}
        for name, parameter in nets[0].named_parameters(remove_duplicate=False):
            if parameter not in stacked:
                values = torch.stack([net.get_parameter(name).detach() for net in nets])
                stacked[parameter] = nn.Parameter(values, requires_grad=parameter.requires_grad)
            owner, _, last = name.rpartition(".")
            # Weights that a net uses twice stay one parameter.
            setattr(self.module.get_submodule(owner), last, stacked[parameter])

    def __call__(self, images: Tensor, training: bool) -> Tensor:
        """Return the logits (k, B, K) of each net for its images (k, B, C, H, W)."""
        self.template.train(training)
        parameters = dict(self.module.named_parameters())

        def call(parameters: Any, buffers: Any, images: Tensor) -> Tensor:  # noqa: ANN401
            found: Tensor = functional_call(self.template, (parameters, buffers), (images,))
            return found

        found: Tensor = vmap(call, randomness="error")(parameters, self._buffers, images)
        return found

    def get_state(self, index: int) -> dict[str, Tensor]:
        """Return the state of one of the nets, as its own `state_dict` would have it."""
        parameters = self.module.named_parameters(remove_duplicate=False)
        tensors = {**dict(parameters), **self._buffers}
        names = self.template.state_dict()
        return {name: tensors[name][index].detach().clone() for name in names}

    def find_finite(self) -> Tensor:
        """Return which nets' parameters are all finite, (k,) bool."""
        parts = [p.detach().flatten(1).isfinite().all(1) for p in self.module.parameters()]
        return torch.stack(parts).all(0)

    def check(self, images: Tensor) -> None:
        """Refuse nets that a stack computes differently from one by one, by a pass in training.

        Args:
            images: As many for each net, (k · B, C, H, W).

        Raises:
            StackError: They draw random numbers, or cannot be stacked.
        """
        images = images.view(len(self.nets), -1, *images.shape[1:])
        before = {name: value.clone() for name, value in self._buffers.items()}
        try:
            with torch.no_grad():
                found = self(images, training=True)
                own = torch.stack(
                    [
                        copy.deepcopy(net).train()(part)
                        for net, part in zip(self.nets, images, strict=True)
                    ]
                )
        except (RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            if "randomness" in str(error):
                reason = "they draw random numbers in training, as dropout does"
            raise StackError(reason) from error
        finally:
            self._buffers.update(before)
        span = (own.amax() - own.amin()).clamp(min=1e-6)
        if found.shape != own.shape or not bool(((found - own).abs() <= _NEAR * span).all()):
            raise StackError("a stack of them computes other logits than they do one by one")


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of the training of a net in a stack.

    Attributes:
        net: The net of the best epoch by its validation images, or of the last one, in eval mode.
        error: Why its training failed.
    """

    net: nn.Module
    error: str | None


def train_stack(
    starts: Sequence[Start],
    nets: Sequence[nn.Module],
    epochs: int,
) -> list[Trained]:
    """Train nets at once; each ends with the weights that `fit` gives it, up to rounding.

    Args:
        starts: Of each training, alike in all settings but the seed.
        nets: Of each start, on the device.
        epochs: Times through the data.

    Raises:
        StackError: The nets, or the settings, cannot be stacked.
    """
    settings, runtime, order = starts[0].settings, starts[0].runtime, starts[0].order
    _check_settings(settings.optimizer, settings.precision)
    stack = Stack(nets)
    optimization = Optimization.create(
        stack.module,
        settings.optimizer,
        settings.schedule,
        settings.groups,
        order.steps,
        None,
        runtime.make_scaler(),
    )
    optimization.check_length(epochs, order.steps)
    # Not of their own images: where these are all alike, batch norm leaves rounding errors alone.
    shape, generator = starts[0].image.shape[1:], torch.Generator().manual_seed(0)
    stack.check(runtime.move(torch.rand(2 * len(nets), *shape, generator=generator)))
    mixing = make_mixing(settings.mix, starts[0].num_classes)
    batches = [
        start.source.load(
            start.order.iterate(0, 0, epochs), start.settings.seed, runtime.pins_memory
        )
        for start in starts
    ]
    best = [-1] * len(nets)
    states: list[Mapping[str, Tensor]] = [{}] * len(nets)
    failed: dict[int, str] = {}
    for epoch in range(epochs):
        for step in range(order.steps):
            images, labels = _load(batches, starts, mixing, epoch, step)
            with runtime.autocast():
                logits = stack(images, training=True)
                losses = _compute_losses(logits, labels, settings.label_smoothing)
            optimization.backward(losses.sum())
            optimization.step()
        finite = stack.find_finite().tolist()
        for index in range(len(nets)):
            if not finite[index] and index not in failed:
                failed[index] = f"a weight is not finite at epoch {epoch + 1}"
        if starts[0].validation is not None:
            sources = [start.validation for start in starts if start.validation is not None]
            for index, correct in enumerate(count_answers(starts, stack, sources).tolist()):
                if correct >= best[index]:  # of equals the last, as `fit` has it
                    best[index], states[index] = correct, stack.get_state(index)
        optimization.advance("epoch")
    for index, net in enumerate(nets):
        net.load_state_dict(states[index] or stack.get_state(index))
    return [Trained(net.eval(), failed.get(index)) for index, net in enumerate(nets)]


def count_answers(starts: Sequence[Start], stack: Stack, sources: Sequence[Source]) -> Tensor:
    """Count the right answers of each net on its own images, (k,) int64."""
    runtime, size = starts[0].runtime, starts[0].settings.batch_size
    keys = list_evaluation_batches(len(sources[0]), size)
    correct = torch.zeros(len(sources), dtype=torch.int64)
    loaded = [source.load(keys, seed=0) for source in sources]
    with torch.no_grad(), runtime.autocast():
        for parts in zip(*loaded, strict=True):
            images = torch.stack([runtime.move(images) for images, _ in parts])
            labels = torch.stack([labels for _, labels in parts])
            logits = stack(images, training=False)
            right = (
                logits.argmax(2).cpu().eq(labels)
                & ~find_unreadable(logits.flatten(0, 1)).view(logits.shape[:2]).cpu()
            )
            correct += right.sum(1)
    return correct


def _check_settings(optimizer: Mapping[str, Any], precision: str) -> None:
    if optimizer.get("name") not in _ELEMENTWISE:
        raise StackError(f"{optimizer.get('name')} does not treat each weight by itself")
    if precision == "fp16":
        raise StackError("in fp16 they would share the scale of their losses")


def _load(
    batches: Sequence[Iterator[tuple[Tensor, Tensor]]],
    starts: Sequence[Start],
    mixing: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None,
    epoch: int,
    step: int,
) -> tuple[Tensor, Tensor]:
    """Return the next images (k, B, C, H, W) and labels (k, B), or shares of classes (k, B, K)."""
    found = []
    for iterator, start in zip(batches, starts, strict=True):
        images, labels = next(iterator)
        check_labels(labels, start.num_classes)
        images = start.runtime.move(images)
        labels = labels.to(start.runtime.device, non_blocking=True)
        if mixing is not None:  # drawn as `Learner.step` draws it
            seed_all("step", start.settings.seed, epoch, step, 0, 0)
            images, labels = mixing(images, labels)
        found.append((images, labels))
    images, labels = (torch.stack(parts) for parts in zip(*found, strict=True))
    return images, labels


def _compute_losses(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Return the mean cross-entropy of each net, (k,)."""
    flat = F.cross_entropy(
        logits.flatten(0, 1),
        labels.flatten(0, 1),
        reduction="none",
        label_smoothing=label_smoothing,
    )
    return flat.view(logits.shape[:2]).mean(1)
