"""What is decided once before anything is explained: the method, and the layer that it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from xcam.core import Method, TrainableMethod, attached_method
from xcam.engine import find_module, untouched
from xcam.engine.layers import default_layer
from xcam.registry import find_name, get_method

__all__ = ["Prepared", "prepare", "requested_method", "resolve_method"]

_DEFAULT = "gradcam"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A method that is ready to explain a model; made by `prepare`, used by `run`.

    Attributes:
        model: The classifier.
        method: With the name of the layer that it reads, if it reads one.
        default_layer: That layer, if the user left it open.
    """

    model: nn.Module
    method: Method
    default_layer: str | None = None


def prepare(
    model: nn.Module,
    images: Tensor,
    method: str | Method | None = None,
    params: Mapping[str, Any] | None = None,
) -> Prepared:
    """Resolve a method, its parameters and its layer for a model and images of a size.

    Args:
        model: The classifier; left as it was.
        images: (B, C, H, W); their values and their number make no difference.
        method: A name, an object, or None; see `xcam.explain`.
        params: Hyper-parameters of the method.

    Raises:
        TypeError: Neither a name nor a method, or a parameter of the wrong name or kind.
        ValueError: A parameter out of its range.
        UnknownNameError: No such method or layer.
        LayerError: The model has no layer that gives a map.
    """
    chosen = resolve_method(requested_method(model, method), params or {})
    if isinstance(chosen, TrainableMethod):
        return Prepared(model, _filled_in(chosen, attached_method(model)))
    if "layer" not in chosen.parameters():
        return Prepared(model, chosen)
    layer = chosen.parameters()["layer"]
    if layer is not None:
        name, _ = find_module(model, layer)
        return Prepared(model, dataclasses.replace(chosen, layer=name))  # type: ignore[type-var]
    with untouched(model):
        name = default_layer(model, images)
    return Prepared(model, dataclasses.replace(chosen, layer=name), name)  # type: ignore[type-var]


def resolve_method(method: str | Method, params: Mapping[str, Any]) -> Method:
    """Return the method of a name, or a method object, with some parameters.

    Raises:
        TypeError: Neither a name nor a method, or a parameter of the wrong name or kind.
        ValueError: A parameter out of its range.
        UnknownNameError: No such method.
    """
    if isinstance(method, str):
        return get_method(method)(**params)
    if not isinstance(method, Method):
        raise TypeError(f"method must be a name or a Method object, got {method!r}")
    return dataclasses.replace(method, **params) if params else method  # type: ignore[type-var]


def requested_method(model: nn.Module, method: str | Method | None) -> str | Method:
    """Return the model's own method where None or its name asks for it, else what was given."""
    own = attached_method(model)
    name = find_name(method) if isinstance(method, str) else method
    if own is not None and name in (None, own.spec.name):
        return own
    return _DEFAULT if method is None else method


def _filled_in(method: TrainableMethod, own: TrainableMethod | None) -> TrainableMethod:
    """Take the fields that are None from the method of the head that the model carries."""
    if own is None or type(own) is not type(method):
        return method
    given = method.parameters()
    open_fields = {name: value for name, value in own.parameters().items() if given[name] is None}
    return dataclasses.replace(method, **open_fields)  # type: ignore[type-var]
