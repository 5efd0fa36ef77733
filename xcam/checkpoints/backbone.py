"""Whether a name and arguments are enough to build a net's structure again."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from xcam import models
from xcam.core import TrainableMethod
from xcam.engine import random_states
from xcam.models import Normalized
from xcam.runs import files

__all__ = ["Source", "built", "named_backbone"]

Source = tuple[str, dict[str, Any]]


def built(source: Source, method: TrainableMethod | None) -> nn.Module:
    """The net of a source, with the head of a method, in random weights."""
    name, settings = source
    net = models.load(name, **settings)
    return net if method is None else method.attach(net)


def named_backbone(net: nn.Module, method: TrainableMethod | None) -> Source | None:
    """What `xcam.models.load` builds the net's structure from, tried out; None if nothing does.

    Equal are the modules by name, their classes, what they print of themselves, and the names and
    shapes of the state; mean, deviation and classes, which a file holds, may differ.
    """
    nets = (module for module in net.modules() if isinstance(module, Normalized))
    source = next((part.source for part in nets if part.source is not None), None)
    if source is None or not _can_be_written(source):
        return None
    # Memory and time are saved on the meta device, where not every net can be built.
    for device in ("meta", "cpu"):
        try:
            with torch.device(device), random_states():
                return source if _structure(built(source, method)) == _structure(net) else None
        except Exception:  # whatever a constructor or an `attach` may raise
            continue
    return None


def _can_be_written(source: Source) -> bool:
    tensors: dict[str, torch.Tensor] = {}
    try:
        files.encode(source[1], "", tensors)
    except TypeError:  # a class or a function, such as `norm_layer`
        return False
    return not tensors


def _structure(net: nn.Module) -> tuple[dict[str, tuple[type, str]], dict[str, torch.Size]]:
    modules = {
        name: (type(module), "" if isinstance(module, Normalized) else module.extra_repr())
        for name, module in net.named_modules()
    }
    return modules, {name: tensor.shape for name, tensor in net.state_dict().items()}
