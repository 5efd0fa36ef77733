"""Explain a batch with what was prepared: for every verb, and for metrics that explain again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xcam.core import Explanation, Method, Note, Target, check_fitted
from xcam.engine import forward, untouched
from xcam.errors import ModelOutputError

if TYPE_CHECKING:
    from xcam._explain.prepare import Prepared

__all__ = ["run"]


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
