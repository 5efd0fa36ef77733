"""Images that show several classes: their labels, their loss, their probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "check_num_labels",
    "compute_class_loss",
    "has_independent_classes",
    "independent_classes",
    "is_multi_label",
    "require_single_labels",
]

_independent: ContextVar[bool] = ContextVar("xcam_independent_classes", default=False)


def is_multi_label(labels: Tensor) -> bool:
    """Return whether labels are (B, K) bool, of images of which each may show several classes."""
    return labels.ndim == 2 and labels.dtype == torch.bool


def compute_class_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean loss of logits: the cross-entropy, or of several labels the binary one.

    Args:
        logits: (B, K).
        labels: (B,) int64, or (B, K) shares of the classes in mixed images; or (B, K) bool, the
            classes of each image, for the mean binary cross-entropy over images and classes.
        label_smoothing: Of the cross-entropy.

    Returns:
        A scalar.
    """
    if is_multi_label(labels):
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def check_num_labels(count: int, num_classes: int) -> None:
    """Refuse several labels an image that are not one for each class of a model.

    Raises:
        ValueError: There are more or fewer of them.
    """
    if count != num_classes:
        raise ValueError(
            f"labels of {count} classes are given for the model's {num_classes}; give a bool for "
            "each of its classes"
        )


def require_single_labels(labels: Tensor, name: str, reason: str) -> None:
    """Refuse images of several labels for a method that cannot learn from them.

    Args:
        labels: As `compute_class_loss` takes them.
        name: Of the method.
        reason: Why it cannot.

    Raises:
        ValueError: They are (B, K) bool.
    """
    if is_multi_label(labels):
        raise ValueError(
            f"{name} cannot be trained on images with several labels: {reason}; train castream, "
            "lficam or abn on them, or give one label an image, with xcam.data.relabel"
        )


@contextmanager
def independent_classes() -> Iterator[None]:
    """Read each class's probability by itself, by a sigmoid, inside a block.

    An image of several labels shows each class or not, whatever else it shows; `xcam.evaluate` is
    in such a block where labels are (B, K) bool.
    """
    token = _independent.set(True)
    try:
        yield
    finally:
        _independent.reset(token)


def has_independent_classes() -> bool:
    """Return whether each class has a probability by itself, see `independent_classes`."""
    return _independent.get()
