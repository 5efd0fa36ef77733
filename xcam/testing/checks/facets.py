"""What a caller owns, and every part of it that a method or metric could leave changed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xcam.core import Explanation, Method
from xcam.testing.probe import ProbeNet, carrier, pictures, probe_of

__all__ = ["FACETS", "SCORED", "State", "World", "mixed", "promised"]

_GLOBAL_HOOKS = [name for name in vars(nn.modules.module) if name.startswith("_global_")]


@dataclass(frozen=True)
class World:
    """What a caller owns: a model and images; for a metric, what it is given of them."""

    net: nn.Module
    images: Tensor
    explanation: Explanation | None = None
    truth: Tensor | None = None


State = dict[str, Any]


def promised(method: Method) -> World:
    """The state in which `maps` is promised its model."""
    return World(carrier(method, ProbeNet()).requires_grad_(False), pictures(3))


def mixed(method: Method | None = None) -> World:
    """Modes, `requires_grad` and `.grad` that differ from place to place.

    Args:
        method: Whose head the net carries, if it is a trainable one; None for the bare probe.
    """
    net = (ProbeNet() if method is None else carrier(method, ProbeNet())).train()
    probe_of(net).features.norm1.eval()
    for index, parameter in enumerate(net.parameters()):
        if index % 2:
            parameter.grad = torch.full_like(parameter, 0.25)
        parameter.requires_grad_(index % 3 != 0)
    images = pictures(3).requires_grad_()
    images.grad = torch.ones_like(images)
    return World(net, images)


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def _modules(world: World) -> State:
    """The same modules, with the same attributes."""
    return {
        f"module {name!r}": (id(module), tuple(sorted(vars(module))))
        for name, module in world.net.named_modules(remove_duplicate=False)
    }


def _modes(world: World) -> State:
    """Each module in training or eval mode as it was."""
    return {f"the mode of {name!r}": m.training for name, m in world.net.named_modules()}


def _hooks(world: World) -> State:
    """No hook of any kind on a module, a parameter, the images, or all modules."""
    state: State = {}
    for name, module in world.net.named_modules():
        for kind, hooks in vars(module).items():
            if "hook" in kind:
                state[f"{kind} of module {name!r}"] = _ids(hooks)
    for name, parameter in [*world.net.named_parameters(), ("images", world.images)]:
        state[f"the hooks of {name}"] = _ids(parameter._backward_hooks)
    for name in _GLOBAL_HOOKS:
        state[name] = _ids(getattr(nn.modules.module, name))
    return state


def _ids(hooks: object) -> object:
    if isinstance(hooks, dict):
        return tuple((key, id(hook)) for key, hook in hooks.items()) or None
    return hooks


def _gradients(world: World) -> State:
    """`.grad` of each parameter: the same tensor, with the same values."""
    return {
        f"the .grad of {name}": (id(tensor.grad), _copy(tensor.grad))
        for name, tensor in world.net.named_parameters()
    }


def _requires_grad(world: World) -> State:
    return {f"requires_grad of {n}": p.requires_grad for n, p in world.net.named_parameters()}


def _parameters(world: World) -> State:
    """Each parameter: the same tensor, never written to."""
    return {
        f"parameter {name}": (id(tensor), tensor._version, _copy(tensor))
        for name, tensor in world.net.named_parameters()
    }


def _buffers(world: World) -> State:
    """Each buffer: the same tensor, with the same values."""
    return {f"buffer {n}": (id(b), _copy(b)) for n, b in world.net.named_buffers()}


def _images(world: World) -> State:
    """The images: never written to, with the same `requires_grad` and `.grad`."""
    images, grad = world.images, world.images.grad
    return {
        "the values of the images": (images._version, _copy(images)),
        "requires_grad of the images": images.requires_grad,
        "the .grad of the images": (id(grad), _copy(grad)),
    }


def _explanation(world: World) -> State:
    """The explanation and the truth: never written to."""
    names = ("maps", "raw", "target", "logits")
    given = {f"the explanation's {name}": getattr(world.explanation, name) for name in names}
    given["the truth"] = world.truth
    return {
        name: tensor if tensor is None else (tensor._version, _copy(tensor))
        for name, tensor in given.items()
    }


def _random_state(_world: World) -> State:
    """The global generators."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch's random state": torch.get_rng_state(),
        "numpy's random state": (name, torch.from_numpy(np.array(keys)), *rest),
        "Python's random state": random.getstate(),
    }


def _grad_mode(_world: World) -> State:
    """The modes of this thread that say how tensors are computed."""
    return {
        "the grad mode": torch.is_grad_enabled(),
        "the inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "the default dtype": torch.get_default_dtype(),
    }


FACETS: dict[str, Callable[[World], State]] = {
    "modules": _modules,
    "modes": _modes,
    "hooks": _hooks,
    "gradients": _gradients,
    "requires_grad": _requires_grad,
    "parameters": _parameters,
    "buffers": _buffers,
    "images": _images,
    "random_state": _random_state,
    "grad_mode": _grad_mode,
}
"""What is looked at before and after a call; each is the check `leaves_` and its name."""

SCORED: dict[str, Callable[[World], State]] = {**FACETS, "explanation": _explanation}
"""The same for a metric, which is given more."""
