"""Passes of the first images that show, before a training, what it needs or cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from xcam._fit.learner import Objective
from xcam._fit.order import Order
from xcam._fit.settings import Runtime
from xcam.core import TrainableMethod, extract_logits
from xcam.engine import untouched

__all__ = [
    "check_last_step",
    "check_multi_label_loss",
    "check_validation_loss",
    "has_trained_logits",
    "share_gradients",
]


def has_trained_logits(net: nn.Module, image: Tensor, runtime: Runtime) -> bool:
    """Return whether the logits depend on anything that is trained."""
    with _differentiable(net), runtime.autocast():
        return extract_logits(net(runtime.move(image)), 1).requires_grad


def share_gradients(
    objective: Objective, image: Tensor, label: Tensor, runtime: Runtime
) -> nn.Module:
    """Return the objective with averaged gradients.

    DDP must be told if the loss leaves out parameters, or it waits for their gradients.
    """
    with _differentiable(objective) as trained, runtime.autocast():
        loss, *_ = objective(runtime.move(image), label.to(runtime.device))
        found = torch.autograd.grad(loss, trained, allow_unused=True)
    unused = any(gradient is None for gradient in found)
    return DistributedDataParallel(objective, find_unused_parameters=unused)


def check_last_step(net: nn.Module, image: Tensor, order: Order, runtime: Runtime) -> None:
    """Refuse a last step with a single image where batch norm would, an epoch later."""
    if order.count_smallest_part() > 1:
        return
    with untouched(net), torch.no_grad(), runtime.autocast():
        try:
            net.train()(runtime.move(image))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            last = order.count_images(order.steps - 1)
            raise ValueError(
                "batch norm of this model cannot learn from one image, and the last step of "
                f"an epoch has {last} for {order.parts} part(s); give drop_last=True, or "
                "another batch_size"
            ) from error


def check_validation_loss(
    net: nn.Module, method: TrainableMethod, batch: tuple[Tensor, Tensor], runtime: Runtime
) -> None:
    """Refuse a method's loss that fails on validation images, before an epoch is lost."""
    image, label = batch
    with untouched(net), torch.no_grad(), runtime.autocast():
        try:
            method.loss(net, runtime.move(image), label.to(runtime.device))
        except RuntimeError as error:
            raise ValueError(
                f"the loss of {method.spec.name} fails on a validation image, in eval mode and "
                f"without gradients ({error}); have it run there, or leave validation out"
            ) from error


def check_multi_label_loss(
    objective: Objective, batch: tuple[Tensor, Tensor], runtime: Runtime
) -> None:
    """Refuse a loss that takes one label an image, before anything is written.

    Raises:
        ValueError: It fails on an image with several labels.
    """
    image, labels = batch
    net, method = objective.net, objective.method
    with untouched(net), torch.no_grad(), runtime.autocast():
        try:
            objective.measure(net, runtime.move(image), labels.to(runtime.device))
        except (IndexError, RuntimeError, TypeError) as error:
            owner = "" if method is None else f" of {method.spec.name}"
            raise ValueError(
                f"the loss{owner} fails on images with several labels, (B, K) bool ({error}); have "
                "it compute xcam.core.compute_class_loss(logits, labels), or give one label an "
                "image, with xcam.data.relabel"
            ) from error


@contextmanager
def _differentiable(net: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Give the trained parameters; a pass inside the block leads back to them, and leaves no trace.

    `untouched` freezes all parameters, so those that are trained are thawed.
    """
    trained = [each for each in net.parameters() if each.requires_grad]
    with untouched(net), torch.enable_grad():
        for each in trained:
            each.requires_grad_(True)
        yield trained
