"""Reading and changing features at several places of a classifier, in one forward pass."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Literal, NamedTuple, ParamSpec, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from xcam.core import Headed
from xcam.engine import eager, unwrap
from xcam.engine.layout import Layout, require_layout
from xcam.engine.trace import hooks
from xcam.errors import LayerError
from xcam.methods.trainable.logits import require_logits
from xcam.models import Normalized

__all__ = ["Change", "Place", "Side", "check_map", "features", "read_features", "tapped"]

Side: TypeAlias = Literal["input", "output"]
Change: TypeAlias = Callable[[Tensor], Tensor | None]
P = ParamSpec("P")
R = TypeVar("R")


def _uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """Leave a function out of compiled code, which would be traced without its hooks."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():  # as a decorator it would import the compiler: seconds
            disable: Callable[[Callable[P, R]], Callable[P, R]] = torch.compiler.disable
            return disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return run


class Place(NamedTuple):
    """A place in a classifier: the output of a layer, or its first input."""

    layer: str
    side: Side = "output"


@_uncompiled
def tapped(net: nn.Module, images: Tensor, changes: Mapping[Place, Change]) -> Tensor:
    """Run the classifier of a net with features read, or changed, on the way.

    Only this pass, in this thread, is changed. Whoever hooks the same layers, as Grad-CAM does,
    sees the features as they are before the change.

    Args:
        net: A `Headed`, and images as it takes them: normalized; or a `Normalized` around it, and
            images as that one takes them.
        images: (B, C, H, W).
        changes: For each place a function of the features there; it returns what the rest of the
            classifier gets instead, or None to only read them.

    Returns:
        The classifier's logits (B, K).

    Raises:
        LayerError: A place is not passed exactly once, or holds no tensor.
        ModelOutputError: The classifier's output is not one (B, K) tensor.
        TypeError: The net is neither.
    """
    headed, images = _enter(net, images)
    taps = [_Tap(place, change) for place, change in changes.items()]
    output = _run(headed.classifier, images, taps)
    for tap in taps:
        tap.check()
    return require_logits(headed.classifier, output, len(images))


@_uncompiled
def features(net: nn.Module, images: Tensor, place: Place) -> Tensor:
    """Run the classifier of a net up to a place, and return the features there.

    What comes behind the place is never run. See `tapped` for the arguments and errors.
    """
    headed, images = _enter(net, images)

    def stop(found: Tensor) -> Tensor:
        raise _Reached(found)

    tap = _Tap(place, stop)
    try:
        _run(headed.classifier, images, [tap])
    except _Reached as reached:
        return reached.features
    tap.check()
    raise AssertionError("unreachable: a pass by the place ends there")


def check_map(found: Tensor, place: Place) -> None:
    """Refuse features that are no map (B, C, h, w) of more than one cell.

    Raises:
        LayerError: They are none.
    """
    if found.ndim != 4 or math.prod(found.shape[2:]) < 2:
        raise LayerError(
            f"the {place.side} of layer {place.layer!r} must be a map (B, C, h, w) of more than "
            f"one cell, got {tuple(found.shape)}; give larger images, or attach "
            "the head to another layer"
        )


def read_features(
    found: Tensor, images: Tensor, classifier: nn.Module, place: Place, channels: int
) -> tuple[Tensor, Layout]:
    """Return features as a map (B, C, h, w), with the layout that they have.

    Args:
        found: What a place gave: a map, channels first or last, or tokens.
        images: (B, ·, H, W); only their shape is read.
        classifier: The net, which may say how it lays out its features.
        place: The output of a layer.
        channels: C.

    Raises:
        LayerError: They are no map of more than one cell.
    """
    if found.ndim == 4 and found.shape[1] == channels != found.shape[3]:
        check_map(found, place)
        return found, Layout("NCHW", (found.shape[2], found.shape[3]))
    layout = require_layout(found, images, classifier, place.layer)
    return layout.read(found), layout


class _Reached(BaseException):
    """The end of a pass at a place; a model's own error handlers do not catch it."""

    def __init__(self, found: Tensor) -> None:
        super().__init__()
        self.features = found


@dataclass(eq=False)
class _Tap:
    """A change of the features at one place, for one pass."""

    place: Place
    change: Change
    calls: int = 0

    def hook(self, classifier: nn.Module) -> AbstractContextManager[None]:
        """Make the change in the passes of a block."""
        module = classifier.get_submodule(self.place.layer)
        if self.place.side == "output":
            return hooks(module, after=lambda _inputs, output: self.apply(output))
        return hooks(module, before=lambda inputs: (self.apply(*inputs[:1]), *inputs[1:]))

    def apply(self, found: object = None) -> Tensor:
        """Return what the classifier goes on with."""
        self.calls += 1
        if not isinstance(found, Tensor):
            raise LayerError(
                f"the {self.place.side} of layer {self.place.layer!r} must be a tensor, got "
                f"{type(found).__name__}; attach the head to another layer"
            )
        changed = self.change(found)
        # Whoever reads keeps the features: what follows gets a clone, since it may work in place.
        return found.clone() if changed is None else changed

    def check(self) -> None:
        """Refuse a pass in which the layer was not called exactly once."""
        if self.calls != 1:
            raise LayerError(
                f"layer {self.place.layer!r} is called {self.calls} times in this forward pass, "
                "and was once when the head was attached; attach it to one that is called once in "
                "every pass"
            )


def _enter(net: nn.Module, images: Tensor) -> tuple[Headed, Tensor]:
    """Return the `Headed` of a net, and the images as it takes them."""
    outer = unwrap(net)
    inner = outer.model if isinstance(outer, Normalized) else outer
    if not isinstance(inner, Headed):
        raise TypeError(
            "features are read in a Headed, alone or in a Normalized around it, got "
            f"{type(outer).__name__}"
        )
    return inner, outer.normalize(images) if isinstance(outer, Normalized) else images


def _run(classifier: nn.Module, images: Tensor, taps: list[_Tap]) -> object:
    with ExitStack() as stack:
        stack.enter_context(eager())  # a compiled classifier would skip the hooks
        for tap in taps:
            stack.enter_context(tap.hook(classifier))
        return classifier(images)
