"""Explaining again, for metrics that compare a map with others of the same image."""

from __future__ import annotations

from torch import Tensor, nn

from xcam._explain.prepared import prepare, run
from xcam.core import Method, Target
from xcam.engine.shared import shareable

__all__ = ["explain_again"]


@shareable
def explain_again(model: nn.Module, images: Tensor, method: str | Method, target: Target) -> Tensor:
    """Return the maps (B, H, W) of images (B, C, H, W) by a method, as `Explanation.maps`."""
    return run(prepare(model, images, method), images, target).maps
