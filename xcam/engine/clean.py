"""The pass over images as they are: what the model predicts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xcam.core import Target, extract_logits
from xcam.engine import forward
from xcam.engine.chunks import collect
from xcam.engine.shared import shareable
from xcam.errors import ModelOutputError

__all__ = ["bind_clean_pass", "clean_logits"]


def bind_clean_pass(model: nn.Module, images: Tensor, target: Target) -> None:
    """Bind the target with a pass over the unchanged images, without a graph."""
    logits: Tensor | None = None
    try:
        logits = _run(model, images)
    except ModelOutputError:
        if target.function is None:  # a callable may read an output without logits
            raise
    target.bind(logits)


def clean_logits(model: nn.Module, images: Tensor, label: str = "") -> Tensor:
    """Return the model's logits (B, K) for images (B, C, H, W), without a graph.

    Args:
        model: The classifier.
        images: (B, C, H, W).
        label: For the progress bar.

    Raises:
        ModelOutputError: The output is not one (B, K) tensor.
    """
    return collect(len(images), lambda part: _run(model, images[part]), images, label)


@shareable
def _run(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits of one chunk."""
    with torch.no_grad():
        return extract_logits(forward.call(model, images), len(images))
