"""A layer's activations as (B, C, h, w), with or without gradients, for the CAM family."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xcam.core import Output, Target, extract_logits
from xcam.engine import Layer, capture
from xcam.engine.layout import read_map, require_layout
from xcam.engine.shared import shareable
from xcam.errors import ModelOutputError

__all__ = [
    "capture_activations",
    "capture_activations_and_gradients",
    "capture_activations_and_scores",
    "read",
    "require_layer",
    "weight_channels",
]


def require_layer(layer: Layer | None) -> Layer:
    """Return the layer, or raise if no layer was chosen."""
    if layer is None:
        raise ValueError("layer is None: name one, or call xcam.explain, which chooses")
    return layer


def capture_activations(
    model: nn.Module, images: Tensor, target: Target, layer: Layer | None
) -> Tensor:
    """Return a layer's output (B, C, h, w), and bind the target with the same pass."""
    any_output = target.function is not None
    activation, logits = _capture(model, images, require_layer(layer), any_output)
    target.bind(logits)
    return activation


def capture_activations_and_scores(
    model: nn.Module, images: Tensor, target: Target, layer: Layer | None, output: Output
) -> tuple[Tensor, Tensor]:
    """Return a layer's output (B, C, h, w) and the images' scores (B,) from one pass."""
    with capture(model, require_layer(layer), grad=False) as tap:
        prediction = tap(images)
        target.bind(prediction)
        return read(tap.activation, images, model, layer), target.scores(prediction, output=output)


def capture_activations_and_gradients(
    model: nn.Module, images: Tensor, target: Target, layer: Layer | None, output: Output
) -> tuple[Tensor, Tensor]:
    """Return a layer's output and the score's gradient there, both (B, C, h, w), from one pass.

    The scores of all images are summed before the backward pass, which is exact since a model in
    eval mode keeps its images apart.
    """
    layer = require_layer(layer)
    activation, gradient, logits = _differentiate(model, images, target, layer, output)
    if not target.bound:
        target.bind(logits)
    return activation, gradient


@shareable
def _capture(
    model: nn.Module, images: Tensor, layer: Layer, any_output: bool
) -> tuple[Tensor, Tensor | None]:
    """Return a layer's output, whatever the target, and the logits; None if any output will do."""
    with capture(model, layer, grad=False) as tap:
        prediction = tap(images)
        try:
            logits = extract_logits(prediction, len(images)).detach()
        except ModelOutputError:
            if not any_output:
                raise
            logits = None
        return read(tap.activation, images, model, layer), logits


@shareable
def _differentiate(
    model: nn.Module, images: Tensor, target: Target, layer: Layer, output: Output
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return a layer's output, the score's gradient there, and the logits."""
    with capture(model, layer) as tap:
        prediction = tap(images)
        target.bind(prediction)
        gradient = tap.gradient(target.scores(prediction, output=output))
        layout = require_layout(gradient, images, model, layer)
        activation = _widen(layout.read(tap.activation.detach()))
        return activation, _widen(layout.read(gradient)), target.logits


def read(tensor: Tensor, images: Tensor, model: nn.Module, layer: Layer | None = None) -> Tensor:
    """Return a layer's tensor as (B, C, h, w), in float32 at least, since channels are summed."""
    return _widen(read_map(tensor, images, model, layer))


def _widen(maps: Tensor) -> Tensor:
    return maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps


def weight_channels(activation: Tensor, weights: Tensor) -> Tensor:
    """Return w_k A_k, (B, C, h, w), for channels (B, C, h, w) and weights (B, C)."""
    return weights[:, :, None, None] * activation
