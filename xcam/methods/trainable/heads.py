"""Reading the head of a net in one pass, for the maps of trainable methods."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import torch
from torch import Tensor, nn

from xcam.core import Target, TrainableMethod, attached_method, find_headed
from xcam.engine import capture

__all__ = ["check_same_head", "compute_slopes", "read_head"]


def read_head(
    model: nn.Module, images: Tensor, target: Target, part: nn.Module | None = None
) -> Tensor:
    """Return the output of a net's head in one forward pass, without a graph; bind the target.

    It is the first tensor of several, and in float32 at least.

    Args:
        model: The net.
        images: (B, C, H, W).
        target: What is explained.
        part: A module of the head, whose output is meant instead.
    """
    with capture(model, part or find_headed(model).head, grad=False) as tap:
        target.bind(tap(images))
        found = tap.activation
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found


def check_same_head(method: TrainableMethod, model: nn.Module, free: Collection[str] = ()) -> None:
    """Refuse a method that a net's head was not made by; a field that is None fits any head.

    Args:
        method: What is asked for.
        model: The net, which carries a method of the same name.
        free: Fields that do not shape the head.

    Raises:
        ValueError: The net's head was made with another value of a field.
    """
    attached = attached_method(model)
    made = {} if attached is None else attached.parameters()
    for name, value in method.parameters().items():
        if value is not None and name not in free and value != made.get(name, value):
            raise ValueError(
                f"the model's head of {method.spec.name} was made with {name}={made[name]!r}, got "
                f"{name}={value!r}; leave it out, or train another head"
            )


def compute_slopes(target: Target) -> Tensor:
    """Return the slopes (B, K) of a callable target's score in the logits of the classes.

    Raises:
        ValueError: The score has none.
    """
    with torch.inference_mode(False), torch.enable_grad():
        logits = cast(Tensor, target.logits).clone().requires_grad_()  # the net gives no other
        scores = target.scores(logits)
        if not scores.requires_grad:
            raise ValueError(
                "the target callable's score does not depend on the logits through differentiable "
                "operations, and the maps of the classes are weighted by its slopes in them; give "
                "a class, or a differentiable score"
            )
        return torch.autograd.grad(scores.sum(), logits)[0]
