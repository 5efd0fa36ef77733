"""The loss that a net brings itself, and the check of what a loss of somebody's own gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from xcam.core import TrainableMethod, extract_logits
from xcam.models import Normalized

__all__ = ["OwnLoss", "check_loss", "find_training_loss", "has_own_loss"]

OwnLoss: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


def find_training_loss(net: nn.Module) -> OwnLoss | None:
    """Return the `training_loss` that a net brings, of images as `fit` has them; None without."""
    inner = net.model if isinstance(net, Normalized) else net
    found = getattr(inner, "training_loss", None)
    if not callable(found):
        return None
    own: OwnLoss = found
    if isinstance(net, Normalized):
        return lambda images, labels: own(net.normalize(images), labels)
    return own


def has_own_loss(method: TrainableMethod) -> bool:
    """Return whether a method learns by another loss than that of the logits alone."""
    return type(method).loss is not TrainableMethod.loss


def check_loss(owner: str, loss: OwnLoss) -> OwnLoss:
    """Return a loss of a method's or a net's that checks what it gives."""

    def compute(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        found = loss(images, labels)
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError(
                f"{owner} must return the loss and the logits of net(images), or "
                f"None in place of the logits, got {type(found).__name__}"
            )
        value, logits = found
        return value, None if logits is None else extract_logits(logits, len(images))

    return compute
