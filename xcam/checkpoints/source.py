"""Building a net's structure from a name and arguments, where they are enough."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import nn

from xcam import models
from xcam.core import Headed, TrainableMethod, attached_method, find_headed
from xcam.engine import random_states
from xcam.models import Normalized
from xcam.runs import files

__all__ = ["ImageShape", "Source", "attach", "build", "find_source"]

Source: TypeAlias = tuple[str, dict[str, Any]]
ImageShape: TypeAlias = tuple[int, int, int]


def build(
    source: Source, method: TrainableMethod | None, image_shape: ImageShape | None
) -> nn.Module:
    """Return the net of a source, with the head of a method, in random weights.

    Args:
        source: The name and arguments for `xcam.models.load`.
        method: Whose head is attached; None for a plain classifier.
        image_shape: (C, H, W) of the images that it is attached for, if they are known.
    """
    name, settings = source
    net = models.load(name, **settings)
    return net if method is None else attach(net, method, image_shape)


def attach(net: nn.Module, method: TrainableMethod, image_shape: ImageShape | None) -> nn.Module:
    """Return the net with the head of a method, for images (C, H, W) if they are known."""
    return method.attach(net, None if image_shape is None else torch.zeros(1, *image_shape))


def find_source(net: nn.Module) -> Source | None:
    """Return what `xcam.models.load` builds the net's structure from; None if nothing does.

    The net is built to find out. Compared are the modules by name, their classes and what they
    print of themselves, and the names and shapes of the state; not mean, deviation and classes,
    which the file holds.
    """
    method = attached_method(net)
    image_shape = None if method is None else find_headed(net).image_shape
    nets = (module for module in net.modules() if isinstance(module, Normalized))
    source = next((part.source for part in nets if part.source is not None), None)
    if source is None or not _can_be_written(source):
        return None
    # Memory and time are saved on the meta device, where not every net can be built.
    for device in ("meta", "cpu"):
        try:
            with torch.device(device), random_states():
                made = build(source, method, image_shape)
                return source if _describe(made) == _describe(net) else None
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


def _describe(net: nn.Module) -> tuple[dict[str, tuple[type, str]], dict[str, torch.Size]]:
    unequal = (Normalized, Headed)  # what these say of themselves is in the file
    modules = {
        name: (type(module), "" if isinstance(module, unequal) else module.extra_repr())
        for name, module in net.named_modules()
    }
    return modules, {name: tensor.shape for name, tensor in net.state_dict().items()}
