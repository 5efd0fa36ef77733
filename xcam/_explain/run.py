"""Explain a batch with what was prepared: for every verb, and for metrics that explain again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xcam.core import Explanation, Method, Note, Target, TrainableMethod
from xcam.engine import forward, untouched, unwrap
from xcam.errors import ModelOutputError, NotFittedError

if TYPE_CHECKING:
    from xcam._explain.prepare import Prepared

__all__ = [
    "attached_method",
    "check_fitted",
    "check_headless",
    "run",
]


def run(prepared: Prepared, images: Tensor, target: Target) -> Explanation:
    """Explain a checked batch, chunk after chunk.

    Args:
        prepared: For this model, and images of this size.
        images: (B, C, H, W), finite, of the model's dtype, on its device.
        target: For these images.

    Raises:
        ModelOutputError: The model, or the method, gave values that are not finite.
        NotFittedError: The method is a trainable one whose head the model lacks, or has untrained.
    """
    model, method = prepared.model, prepared.method
    check_fitted(method, model)
    images = images.detach()

    def step(part: slice) -> tuple[Tensor, Target]:
        chunk = target.select(part)
        raw = _checked(method.maps(model, images[part], chunk), chunk, method)
        if not chunk.bound:
            with torch.no_grad():
                chunk.bind(forward.call(model, images[part]))
        return raw, chunk

    with untouched(model):
        done = [result for _, result in forward.chunks(len(images), step, images, method.spec.name)]
    forward.note_repeated_layers(but=prepared.default_layer)
    raw = torch.cat([raw for raw, _ in done])
    return Explanation(
        raw=raw,
        size=(images.shape[2], images.shape[3]),
        target=_join([chunk.classes for _, chunk in done]),
        logits=_join([chunk.logits for _, chunk in done]),
        method=method,
        run_notes=tuple(Note(None, sentence) for sentence in forward.current_runtime().notes),
    )


def attached_method(model: nn.Module) -> TrainableMethod | None:
    """The method whose head the model carries, if it carries one."""
    method = getattr(unwrap(model), "method", None)
    return method if isinstance(method, TrainableMethod) else None


def check_fitted(method: Method, model: nn.Module) -> None:
    """Refuses a trainable method on a model that does not carry its trained head.

    Raises:
        NotFittedError: The model lacks the head, or has it untrained.
    """
    if not isinstance(method, TrainableMethod):
        return
    name, own = method.spec.name, attached_method(model)
    if own is None or own.spec.name != name:
        head = "no head" if own is None else f"the head of {own.spec.name}"
        raise NotFittedError(
            f"{name} needs a model with its head, and this one has {head}; explain the net that "
            f"xcam.fit(model, data, method={name!r}) returns"
        )
    if not getattr(unwrap(model), "fitted", False):
        raise NotFittedError(
            f"the head of {name} on this model is not trained; xcam.fit(model, data, "
            f"method={name!r}) trains one"
        )


def check_headless(model: nn.Module) -> None:
    """Refuses a model that carries a head: another one around it would have no file.

    Raises:
        ValueError: It does.
    """
    own = attached_method(model)
    if own is not None:
        raise ValueError(
            f"the model carries the head of {own!r} already; give the classifier without it: the "
            "one that it was made from or, as trained with the head, xcam.without_head(net)"
        )


def _join(parts: list[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known) if len(known) == len(parts) else None


def _checked(raw: object, chunk: Target, method: Method) -> Tensor:
    """What a method gave for a chunk, as float32, if it is a finite map an image."""
    count, name = len(chunk.rows), method.spec.name
    if not isinstance(raw, Tensor) or raw.ndim not in (3, 4) or len(raw) != count:
        got = tuple(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__
        raise ModelOutputError(
            f"{name} must give (B, h, w) or (B, C, H, W) maps for {count} images, got {got}"
        )
    raw = raw.detach().float()
    finite = raw.flatten(1).isfinite().all(1)
    if not bool(finite.all()):
        image = int(chunk.rows[~finite][0])
        raise ModelOutputError(
            f"{name} gave a map that is not finite for image {image}; check the model's weights "
            "at the explained layer, or use a higher precision"
        )
    return raw
