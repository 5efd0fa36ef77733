"""Readers of a model's output: the score of a class, and whether it is predicted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from xcam.core import (
    Output,
    Target,
    check_finite,
    extract_logits,
    find_unreadable,
    has_independent_classes,
    mark_unreadable,
)

__all__ = [
    "Read",
    "check_changed",
    "is_among_top",
    "make_hit_reader",
    "make_score_and_hit_reader",
    "make_score_reader",
]

Read: TypeAlias = Callable[[object, Tensor], Tensor]
"""From the output for R rows, and the image of each, (R,) int64, to (R, …)."""

# Logits of one image differ by about 1e-6 of their size between chunks of different sizes.
_TIE = 1e-5


def is_among_top(logits: Tensor, classes: Tensor, top: int = 1) -> Tensor:
    """Return whether a class is among the `top` highest logits; for 1, whether it is predicted.

    Of equals the first class goes first, as with argmax: a model that tells no class from another
    decides for class 0 alone. Logits as near each other as rounding brings them count as equal, so
    that the size of a chunk alone changes no decision. No class is among the top of logits that are
    unreadable (`xcam.core.find_unreadable`).

    Args:
        logits: (R, K).
        classes: (R,) int64 below K.
        top: How many are the top.

    Returns:
        (R,) bool.
    """
    readable = ~find_unreadable(logits)
    tie = _TIE * logits.abs().where(logits.isfinite(), 0).amax(1, keepdim=True)
    logits = logits.clamp(min=torch.finfo(logits.dtype).min)  # −∞ − (−∞) would be no number
    own = classes[:, None]
    lead = logits - logits.gather(1, own)
    before = torch.arange(logits.shape[1], device=logits.device) < own
    ahead = (lead > tie) | ((lead >= -tie) & before)
    return (ahead.sum(1) < top) & readable


def make_score_reader(target: Target, output: Output, contrast: Target | None = None) -> Read:
    """Make a reader of the explained class's score: (R,), NaN where logits are unreadable.

    With a contrast, it is the score less that of the contrasted class, as the map is the one's less
    the other's.
    """
    checked = _make_logits_reader(target)
    if contrast is not None:
        less = make_score_reader(contrast, output)

    def read(prediction: object, rows: Tensor) -> Tensor:
        logits, _ = checked(prediction, rows)
        score = mark_unreadable(target.scores(logits, rows, output=output), logits)
        return score if contrast is None else score - less(logits, rows)

    return read


def make_hit_reader(target: Target) -> Read:
    """Make a reader of whether the model predicts the explained class: (R,) 0 or 1.

    By the rule of `is_among_top`. A single logit, or that of a class by itself, is for its class if
    it is positive. Where logits are unreadable it is NaN.
    """
    checked = _make_logits_reader(target)

    def read(prediction: object, rows: Tensor) -> Tensor:
        logits, classes = checked(prediction, rows)
        if logits.shape[1] == 1 or has_independent_classes():
            hits = logits.gather(1, classes[:, None])[:, 0] > 0
        else:
            hits = is_among_top(logits, classes)
        return mark_unreadable(hits.to(logits.dtype), logits)

    return read


def make_score_and_hit_reader(target: Target) -> Read:
    """Make a reader of the explained class's probability and whether it is predicted: (R, 2)."""
    score, hit = make_score_reader(target, "prob"), make_hit_reader(target)

    def read(prediction: object, rows: Tensor) -> Tensor:
        return torch.stack([score(prediction, rows), hit(prediction, rows)], 1)

    return read


def check_changed(found: Tensor) -> Tensor:
    """Return values (B, …) read from changed images, or raise if those of one are not finite."""
    return check_finite(
        found,
        lambda image: (
            f"the model's output for image {image} is not finite once pixels are changed: check "
            "the fill, or use a higher precision"
        ),
    )


def _make_logits_reader(target: Target) -> Callable[[object, Tensor], tuple[Tensor, Tensor]]:
    """Make a reader of the logits (R, K) and the explained class of each row, (R,)."""
    classes = target.classes
    if classes is None:
        raise ValueError("the target must name classes, got one without any")
    highest = target.highest

    def read(prediction: object, rows: Tensor) -> tuple[Tensor, Tensor]:
        logits = extract_logits(prediction, len(rows))
        if highest >= logits.shape[1]:
            raise ValueError(
                f"the explained class {highest} is out of range: the model has "
                f"{logits.shape[1]} classes; score the maps on the model that they explain"
            )
        return logits, classes[rows]

    return read
