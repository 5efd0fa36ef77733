"""Reading a layer as (B, C, h, w), with or without its gradient: shared by the CAM family."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xcam.core import Output, Target
from xcam.engine import Layer, capture
from xcam.engine.layout import read_map

__all__ = [
    "capture_activations",
    "capture_activations_and_gradients",
    "capture_activations_and_scores",
    "read",
    "require_layer",
    "weight_channels",
]


def require_layer(layer: Layer | None) -> Layer:
    """The layer, which whoever runs the method has filled in."""
    if layer is None:
        raise ValueError("layer is None: name one, or call xcam.explain, which chooses")
    return layer


def capture_activations(
    model: nn.Module, images: Tensor, target: Target, layer: Layer | None
) -> Tensor:
    """A layer's output for the images, (B, C, h, w); binds the target with the same pass."""
    with capture(model, require_layer(layer), grad=False) as tap:
        target.bind(tap(images))
        return read(tap.activation, images, model)


def capture_activations_and_scores(
    model: nn.Module, images: Tensor, target: Target, layer: Layer | None, output: Output
) -> tuple[Tensor, Tensor]:
    """A layer's output, (B, C, h, w), and the clean images' scores, (B,), in one pass."""
    with capture(model, require_layer(layer), grad=False) as tap:
        prediction = tap(images)
        target.bind(prediction)
        return read(tap.activation, images, model), target.scores(prediction, output=output)


def capture_activations_and_gradients(
    model: nn.Module, images: Tensor, target: Target, layer: Layer | None, output: Output
) -> tuple[Tensor, Tensor]:
    """A layer's output and the score's gradient there, both (B, C, h, w), in one pass.

    The scores of all images are summed before the backward pass, which is exact since a model in
    eval mode keeps its images apart.
    """
    with capture(model, require_layer(layer)) as tap:
        prediction = tap(images)
        target.bind(prediction)
        gradient = tap.gradient(target.scores(prediction, output=output))
        return read(tap.activation.detach(), images, model), read(gradient, images, model)


def read(tensor: Tensor, images: Tensor, model: nn.Module) -> Tensor:
    """A layer's tensor as (B, C, h, w), in float32 at least: sums over channels need the digits."""
    maps = read_map(tensor, images, model)
    return maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps


def weight_channels(activation: Tensor, weights: Tensor) -> Tensor:
    """Σ_k w_k A_k: (B, h, w) from (B, C, h, w) and a weight a channel, (B, C)."""
    return (weights[:, :, None, None] * activation).sum(1)
