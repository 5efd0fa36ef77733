"""`prepare` decides once what explains a model, and `run` explains batches with it.

Every verb that explains, and every metric that explains again, uses these two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from xcam.core import (
    Explanation,
    Method,
    Note,
    Settings,
    Target,
    TrainableMethod,
    attached_method,
    check_finite,
    check_fitted,
)
from xcam.engine import find_module, forward, untouched, unwrap
from xcam.engine.bypass import describe_stream
from xcam.engine.chunks import chunks
from xcam.engine.clean import bind_clean_pass
from xcam.engine.layers import find_default_layer
from xcam.engine.restore import rerun_overwritten
from xcam.engine.structure import forget
from xcam.errors import LayerError, ModelOutputError
from xcam.models.categories import find_categories
from xcam.registry import find_name, make_base, make_method

__all__ = [
    "Prepared",
    "check_table_labels",
    "label_settings",
    "prepare",
    "requested_method",
    "resolve_method",
    "run",
]

S = TypeVar("S", bound=Settings)

_DEFAULT = "gradcam"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A method that is ready to explain a model; made by `prepare`, used by `run`.

    Attributes:
        model: The classifier.
        method: With the name of the layer that it reads, if it reads one.
        default_layer: That layer, if the user left it open.
        note: What the user should know of the layer.
    """

    model: nn.Module
    method: Method
    default_layer: str | None = None
    note: str | None = None


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
    chosen = _fuse_layers(resolve_method(requested_method(model, method), params or {}))
    if isinstance(chosen, TrainableMethod):
        return Prepared(model, _fill_in(chosen, attached_method(model)))
    if layers := chosen.parameters().get("layers"):
        names = tuple(find_module(model, layer)[0] for layer in layers)
        return Prepared(model, dataclasses.replace(chosen, layers=names))  # type: ignore[type-var]
    base = chosen.parameters().get("base")
    if isinstance(base, Method):
        ready = prepare(model, images, base)
        chosen = dataclasses.replace(chosen, base=ready.method)  # type: ignore[type-var]
        return Prepared(model, chosen, ready.default_layer, ready.note)
    if "layer" not in chosen.parameters():
        return Prepared(model, chosen)
    layer = chosen.parameters()["layer"]
    if layer is not None:
        name, module = find_module(model, layer)
        chosen = dataclasses.replace(chosen, layer=name)  # type: ignore[type-var]
        with untouched(model):
            return Prepared(model, chosen, note=describe_stream(model, images, module))
    with untouched(model):
        found = find_default_layer(model, images)
    chosen = dataclasses.replace(chosen, layer=found.name)  # type: ignore[type-var]
    return Prepared(model, chosen, found.name, found.note)


def run(prepared: Prepared, images: Tensor, target: Target) -> Explanation:
    """Explain a checked batch, chunk after chunk.

    Args:
        prepared: For this model, and images of this size.
        images: (B, C, H, W), finite, of a dtype that the model takes, on its device.
        target: For these images.

    Raises:
        ModelOutputError: The model, or the method, gave values that are not finite.
        NotFittedError: The method is a trainable one whose head the model lacks, or has untrained.
    """
    method = prepared.method
    try:
        return _run_once(prepared, images, target)
    except LayerError:
        if prepared.default_layer is None or "layer" not in method.parameters():
            raise
    # The layer may have been found before the net was changed in a way that is not compared.
    forget(unwrap(prepared.model))
    open_layer = dataclasses.replace(method, layer=None)  # type: ignore[type-var]
    return _run_once(prepare(prepared.model, images, open_layer), images, target)


def _run_once(prepared: Prepared, images: Tensor, target: Target) -> Explanation:
    """Explain a batch by the layer that was prepared."""
    model, method = prepared.model, prepared.method
    check_fitted(method, model)
    images = images.detach()

    def step(part: slice) -> tuple[Tensor, Target]:
        def explain() -> tuple[object, Target]:
            chunk = target.select(part)
            return method.maps(model, images[part], chunk), chunk

        found, chunk = rerun_overwritten(explain)
        raw = _check_maps(found, chunk, method)
        if not chunk.bound:
            bind_clean_pass(model, images[part], chunk)
        return raw, chunk

    with untouched(model):
        done = [result for _, result in chunks(len(images), step, images, method.spec.name)]
    forward.note_repeated_layers(prepared.default_layer)
    if prepared.note:
        forward.note(prepared.note)
    raw = torch.cat([raw for raw, _ in done])
    logits = _concatenate([chunk.logits for _, chunk in done])
    return Explanation(
        raw=raw,
        size=(images.shape[2], images.shape[3]),
        target=_concatenate([chunk.classes for _, chunk in done]),
        logits=logits,
        method=method,
        run_notes=tuple(Note(None, sentence) for sentence in forward.current_runtime().notes),
        categories=() if logits is None else find_categories(model, logits.shape[1]),
    )


def resolve_method(method: str | Method, params: Mapping[str, Any]) -> Method:
    """Return the method of a name, or a method object, with some parameters.

    Raises:
        TypeError: Neither a name nor a method, or a parameter of the wrong name or kind.
        ValueError: A parameter out of its range.
        UnknownNameError: No such method.
    """
    if isinstance(method, str):
        return make_method(method, params)
    if not isinstance(method, Method):
        raise TypeError(f"method must be a name or a Method object, got {method!r}")
    changed = dataclasses.replace(method, **params) if params else method  # type: ignore[type-var]
    return make_base(changed)


def requested_method(model: nn.Module, method: str | Method | None) -> str | Method:
    """Return the model's own method where None or its name asks for it, else what was given."""
    own = attached_method(model)
    name = find_name(method) if isinstance(method, str) else method
    if own is not None and name in (None, own.spec.name):
        return own
    return _DEFAULT if method is None else method


def label_settings(given: object, resolve: Callable[..., S]) -> dict[str, S]:
    """Return each by its label: the caller's, else its name, else, for a repeated name, its repr.

    Raises:
        TypeError: A label of the caller's is no string.
        ValueError: The same one is given twice.
    """
    if isinstance(given, Mapping):
        check_table_labels(given)
        return {label: resolve(one) for label, one in given.items()}
    if isinstance(given, str | Settings) or not isinstance(given, Iterable):
        given = (given,)
    resolved = [resolve(one) for one in given]
    names = [str(one.spec.name) for one in resolved]  # type: ignore[attr-defined]  # both kinds have
    labels = [
        repr(one) if names.count(name) > 1 else name
        for name, one in zip(names, resolved, strict=True)
    ]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"{label} is given twice; give each once, or name them, {{name: …}}")
    return dict(zip(labels, resolved, strict=True))


def check_table_labels(given: Mapping[Any, object]) -> None:
    """Refuse labels other than strings, which is what tables and files are named by.

    Raises:
        TypeError: There is one.
    """
    for label in given:
        if not isinstance(label, str):
            raise TypeError(f"a label must be a string, got {label!r}; give {str(label)!r}")


def _fuse_layers(method: Method) -> Method:
    """Return a method that is to read several layers as the fusion of its maps of each."""
    layer = method.parameters().get("layer")
    if not isinstance(layer, tuple) or len(layer) < 2:
        return method
    base = dataclasses.replace(method, layer=None)  # type: ignore[type-var]  # as it has one
    return make_method("layer_fusion", {"layers": layer, "base": base})


def _fill_in(method: TrainableMethod, own: TrainableMethod | None) -> TrainableMethod:
    """Take the fields that are None from the method of the head that the model carries."""
    if own is None or type(own) is not type(method):
        return method
    given = method.parameters()
    open_fields = {name: value for name, value in own.parameters().items() if given[name] is None}
    return dataclasses.replace(method, **open_fields)  # type: ignore[type-var]


def _concatenate(parts: list[Tensor | None]) -> Tensor | None:
    """Concatenate what chunks gave; None if it is missing for any."""
    known = [part for part in parts if part is not None]
    return torch.cat(known) if len(known) == len(parts) else None


def _check_maps(raw: object, chunk: Target, method: Method) -> Tensor:
    """Return what a method gave for a chunk in float32; refuse it unless it is finite maps."""
    count, name = len(chunk.rows), method.spec.name
    if not isinstance(raw, Tensor) or raw.ndim not in (3, 4) or len(raw) != count:
        got = tuple(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__
        raise ModelOutputError(
            f"{name} must give (B, h, w) or (B, C, H, W) maps for {count} images, got {got}"
        )
    return check_finite(
        raw.detach().float(),
        lambda image: (
            f"{name} gave a map that is not finite for image {image}; check that the model's "
            "weights are finite, or use a higher precision"
        ),
        chunk.rows,
    )
