"""What the methods with a trained head share: changing features in a pass, and reading a head."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from xcam._explain.run import attached_method
from xcam.core import Target, TrainableMethod, extract_logits
from xcam.engine import capture
from xcam.errors import LayerError, NotFittedError
from xcam.methods.trainable.backbone import Place
from xcam.methods.trainable.logits import logits_of

__all__ = ["Change", "Tap", "part", "read", "same_head", "watched"]

Change: TypeAlias = Callable[[Tensor], Tensor]
M = TypeVar("M", bound=nn.Module)


@dataclass(eq=False)
class _Run:
    """One forward pass, for as long as it lasts."""

    change: Change
    calls: int = 0


_runs: ContextVar[tuple[tuple[Tap, _Run], ...]] = ContextVar("xcam_taps", default=())


class Tap:
    """A place in a net where a head reads the features, and may change them, in its own passes.

    Its hook is a bound method, which survives copying and pickling of the net, and does nothing
    when the net runs outside of `run`. What a pass needs lives in the pass alone.

    Args:
        net: The backbone.
        layer: The name of a module in it.
        place: Whether the module's output or its first input is tapped.
    """

    def __init__(self, net: nn.Module, layer: str, place: Place = "output") -> None:
        self.layer, self.place = layer, place
        module = net.get_submodule(layer)
        if place == "output":
            module.register_forward_hook(self._on_output)
        else:
            module.register_forward_pre_hook(self._on_input)

    def run(self, net: nn.Module, images: Tensor, change: Change) -> Tensor:
        """The net's logits (B, K) for images (B, C, H, W), its features changed on the way.

        Args:
            net: The backbone.
            images: What it takes.
            change: From the features (B, C, h, w) to what the rest of the net gets instead, of the
                same shape.

        Raises:
            LayerError: The layer is not called once in the pass, or there is no map there.
            ModelOutputError: The net's output is not one (B, K) tensor.
        """
        run = _Run(change)
        token = _runs.set((*_runs.get(), (self, run)))
        try:
            output = net(images)
        finally:
            _runs.reset(token)
        if run.calls != 1:
            raise LayerError(
                f"layer {self.layer!r} is called {run.calls} times in this forward pass, and was "
                "once when the head was attached; attach it to one that is called once in every "
                "pass"
            )
        return logits_of(net, output, len(images))

    def _on_output(self, _module: nn.Module, _inputs: object, output: object) -> Tensor | None:
        run = self._current()
        return None if run is None else self._changed(run, output)

    def _on_input(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        run = self._current()
        return None if run is None else (self._changed(run, inputs[0]), *inputs[1:])

    def _current(self) -> _Run | None:
        return next((run for tap, run in reversed(_runs.get()) if tap is self), None)

    def _changed(self, run: _Run, features: object) -> Tensor:
        run.calls += 1
        shape = features.shape if isinstance(features, Tensor) else ()
        if not isinstance(features, Tensor) or len(shape) != 4 or math.prod(shape[2:]) < 2:
            raise LayerError(
                f"the {self.place} of layer {self.layer!r} must be a map (B, C, h, w) of more than "
                f"one cell, got {tuple(shape) or type(features).__name__}; use larger images, or "
                "attach the head to another layer"
            )
        return run.change(features)


def part(model: nn.Module, kind: type[M]) -> M:
    """The outermost part of a net that is of a class.

    Raises:
        NotFittedError: There is none.
    """
    found = next((module for module in model.modules() if isinstance(module, kind)), None)
    if found is None:
        raise NotFittedError(
            f"the model has no {kind.__name__}; give a net that xcam.fit, or the method's attach, "
            "has made"
        )
    return found


def watched(model: nn.Module, module: nn.Module, images: Tensor) -> tuple[Tensor, Any]:
    """The model's logits (B, K), and what a module in it returned on the way; for losses."""
    kept: list[Any] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        output = model(images)
    finally:
        handle.remove()
    return extract_logits(output, len(images)), kept[-1]


def read(model: nn.Module, module: nn.Module, images: Tensor, target: Target) -> Tensor:
    """What a module gives in one forward pass, without a graph; binds the target; for maps.

    Of several tensors that it gives it is the first; in float32 at least.
    """
    with capture(model, module, grad=False) as tap:
        target.bind(tap(images))
        found = tap.activation
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found


def same_head(method: TrainableMethod, model: nn.Module, free: Collection[str] = ()) -> None:
    """Checks that a net's head is of this shape; a field that is None is whatever the net has.

    Args:
        method: What is asked for.
        model: The net, which carries a method of the same name.
        free: Fields that do not shape the head.

    Raises:
        ValueError: The net's head was made with another value of a field.
    """
    own = attached_method(model)
    made = {} if own is None else own.parameters()
    for name, value in method.parameters().items():
        if value is not None and name not in free and value != made.get(name, value):
            raise ValueError(
                f"the model's head of {method.spec.name} was made with {name}={made[name]!r}, got "
                f"{name}={value!r}; leave it out, or train another head"
            )
