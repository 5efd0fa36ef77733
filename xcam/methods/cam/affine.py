"""Classifiers that are affine in the means of a layer's channels, whatever they are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xcam.core import Target, extract_logits
from xcam.engine import Layer, capture, replace_output
from xcam.engine.chunks import collect
from xcam.engine.layout import require_layout
from xcam.engine.trace import output_tensors
from xcam.errors import ModelOutputError
from xcam.methods.cam.features import read

__all__ = ["average_gradients", "is_affine"]

# A function that only looks affine for some of these (ReLUs, odd or homogeneous ones) fails for
# another.
_FACTORS = (0.0, -1.0, 2.0)


def average_gradients(
    model: nn.Module, images: Tensor, target: Target, layer: Layer
) -> Tensor | None:
    """Return the score's gradient at the means of a layer's channels, (B, C).

    None if the score reads more of the layer than the means: the gradient differs between cells.

    Args:
        model: The classifier.
        images: (B, C, H, W).
        target: Bound.
        layer: Name or module.

    Raises:
        LayerError: The score has no gradient at the layer.
    """
    with capture(model, layer) as tap:
        gradient = read(tap.gradient(target.scores(tap(images))), images, model, layer)
        precision = torch.finfo(tap.activation.dtype).eps
    mean = gradient.mean((2, 3), keepdim=True)
    scale = gradient.abs().amax((1, 2, 3), keepdim=True)
    if bool(((gradient - mean).abs() > max(1e-4, 4 * precision) * scale).any()):
        return None
    return gradient.sum((2, 3))


def is_affine(
    model: nn.Module, images: Tensor, layer: Layer, output: object, call: int, precision: float
) -> bool:
    """Return whether a model's logits are affine in a layer's map, tried for each image.

    The map A is replaced by t A: what affine logits then exceed those for 0 by is t
    times what those for A do. If the model gives no logits, all that it returns is tried.

    Args:
        model: The classifier.
        images: (B, C, H, W).
        layer: Name or module.
        output: What the model returns for the images.
        call: Which of its calls of the layer is meant, from 0 on.
        precision: Of the layer's output.
    """
    clean = _read_values(output, len(images))
    count, factors = 0, images.new_zeros(0)

    def scale(output: Tensor) -> Tensor:
        nonlocal count
        count += 1
        if count - 1 != call:
            return output
        changed = output.clone()
        one_each = images[:1].expand(len(factors), -1, -1, -1)
        view = require_layout(changed, one_each, model, layer).channels(changed)
        view *= factors.to(view.dtype).view(-1, 1, 1, 1)
        return changed

    with replace_output(model, layer, scale) as run:

        def step(part: slice) -> Tensor:
            nonlocal count, factors
            pairs = torch.arange(part.start, part.stop, device=images.device)
            rows, numbers = pairs % len(images), pairs // len(images)
            count, factors = 0, images.new_tensor(_FACTORS)[numbers]
            return _read_values(run(images[rows]), len(rows))

        found = collect(len(_FACTORS) * len(images), step, images)
    hidden, *others = found.chunk(len(_FACTORS))
    largest = torch.stack([clean, hidden, *others]).abs().amax((0, 2))
    tolerance = max(1e-4, 4 * precision) * largest[:, None]
    return all(
        bool(((changed - hidden - factor * (clean - hidden)).abs() <= tolerance).all())
        for factor, changed in zip(_FACTORS[1:], others, strict=True)
    )


def _read_values(output: object, rows: int) -> Tensor:
    """Return the logits of an output, (rows, K), or else all that it holds for each row."""
    try:
        return extract_logits(output, rows).detach()
    except ModelOutputError:
        tensors = [t for t in output_tensors(output) if t.ndim and len(t) == rows]
        values = [tensor.detach().float().reshape(rows, -1) for tensor in tensors]
        return torch.cat(values, 1) if values else torch.full((rows, 1), torch.nan)
