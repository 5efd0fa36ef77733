"""What a caller owns, and every part of it that a method or metric could leave changed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xcam.core import Method, Metric
from xcam.testing.probe import Fuse
from xcam.testing.subject import Case, Subject

__all__ = ["FACETS", "State", "World", "compare_states", "make_frozen_world", "make_mixed_world"]

_GLOBAL_HOOKS = [name for name in vars(nn.modules.module) if name.startswith("_global_")]


@dataclass(frozen=True)
class World:
    """What a caller owns: a model and images; for a metric, what it is given of them."""

    net: nn.Module
    case: Case

    @property
    def images(self) -> Tensor:
        """Return the images."""
        return self.case.images


State = dict[str, Any]
AnySubject = Subject[Method] | Subject[Metric]


def make_frozen_world(subject: AnySubject, fuse: Fuse | None = None) -> World:
    """Make the state in which `maps` is promised its model."""
    net = subject.build_net(fuse=fuse).requires_grad_(False)
    return World(net, subject.build_case().select(range(3)))


def make_mixed_world(
    subject: AnySubject, fuse: Fuse | None = None, net: nn.Module | None = None
) -> World:
    """Make modes, `requires_grad` and `.grad` that differ from place to place.

    Args:
        subject: Whose net and images they are.
        fuse: To count the passes of the net.
        net: Another one instead.
    """
    net = (subject.build_net(fuse=fuse) if net is None else net).train()
    for module in list(net.modules())[1::2]:
        module.training = False
    for index, parameter in enumerate(net.parameters()):
        if index % 2:
            parameter.grad = torch.full_like(parameter, 0.25)
        parameter.requires_grad_(index % 3 != 0)
    case = subject.build_case().select(range(3))
    images = case.images.requires_grad_()
    images.grad = torch.ones_like(images)
    return World(net, case)


def compare_states(before: State, after: State) -> Iterator[str]:
    """Yield what is not the same in two looks at a facet, in words."""
    for key in {**before, **after}:
        if not _is_same(before.get(key), after.get(key)):
            yield key


def _is_same(first: Any, second: Any) -> bool:  # noqa: ANN401
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        # NaN stands for "no box" in truth, and is not equal to itself.
        alike = first.dtype == second.dtype and first.shape == second.shape
        return alike and bool(((first == second) | (first.isnan() & second.isnan())).all())
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(_is_same, first, second))
    return type(first) is type(second) and bool(first == second)


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def _modules(world: World) -> State:
    """Read the modules and the names of their attributes."""
    return {
        f"module {name!r}": (id(module), tuple(sorted(vars(module))))
        for name, module in world.net.named_modules(remove_duplicate=False)
    }


def _modes(world: World) -> State:
    """Read whether each module is in training or eval mode."""
    return {f"the mode of {name!r}": m.training for name, m in world.net.named_modules()}


def _hooks(world: World) -> State:
    """Read the hooks of any kind on a module, a parameter, the images, or all modules."""
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
    """Read which tensor the `.grad` of each parameter is, and its values."""
    return {
        f"the .grad of {name}": (id(tensor.grad), _copy(tensor.grad))
        for name, tensor in world.net.named_parameters()
    }


def _requires_grad(world: World) -> State:
    return {f"requires_grad of {n}": p.requires_grad for n, p in world.net.named_parameters()}


def _parameters(world: World) -> State:
    """Read which tensor each parameter is, how often it was written to, and its values."""
    return {
        f"parameter {name}": (id(tensor), tensor._version, _copy(tensor))
        for name, tensor in world.net.named_parameters()
    }


def _buffers(world: World) -> State:
    """Read which tensor each buffer is, and its values."""
    return {f"buffer {n}": (id(b), _copy(b)) for n, b in world.net.named_buffers()}


def _images(world: World) -> State:
    """Read the images, how often they were written to, their `requires_grad` and `.grad`."""
    images, grad = world.images, world.images.grad
    return {
        "the values of the images": (images._version, _copy(images)),
        "requires_grad of the images": images.requires_grad,
        "the .grad of the images": (id(grad), _copy(grad)),
    }


def _explanation(world: World) -> State:
    """Read the explanation and the truth, and how often they were written to."""
    names = ("maps", "raw", "target", "logits")
    explanation, truth = world.case.explanation, world.case.truth
    given = {f"the explanation's {name}": getattr(explanation, name, None) for name in names}
    given["the truth"] = truth
    return {
        name: tensor if tensor is None else (tensor._version, _copy(tensor))
        for name, tensor in given.items()
    }


def _random_state(_world: World) -> State:
    """Read the global generators."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch's random state": torch.get_rng_state(),
        "numpy's random state": (name, torch.from_numpy(np.array(keys)), *rest),
        "Python's random state": random.getstate(),
    }


def _grad_mode(_world: World) -> State:
    """Read the modes of this thread that say how tensors are computed."""
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
    "explanation": _explanation,
}
"""What is looked at before and after a call; each is the check `leaves_` and its name."""
