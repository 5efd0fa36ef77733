"""Explaining again, for metrics that compare a map with others of the same image."""

from __future__ import annotations

from torch import Tensor, nn

from xcam._explain.contrasting import explain_contrast
from xcam._explain.prepared import Prepared, prepare, run
from xcam.core import Explanation, Method, Target
from xcam.engine.shared import shareable

__all__ = ["explain_again", "explain_prepared", "read_contrast"]


def read_contrast(explanation: Explanation, images: Tensor) -> Target | None:
    """Return the classes that the explained ones were contrasted with; None if there are none."""
    contrast = explanation.contrast
    return None if contrast is None else Target.of(contrast.to(images.device), images)


@shareable
def explain_again(
    model: nn.Module,
    images: Tensor,
    method: str | Method,
    target: Target,
    contrast: Target | None = None,
) -> Tensor:
    """Return the maps (B, H, W) of images (B, C, H, W) by a method, as `Explanation.maps`."""
    return explain_prepared(prepare(model, images, method), images, target, contrast).maps


def explain_prepared(
    prepared: Prepared, images: Tensor, target: Target, contrast: Target | None
) -> Explanation:
    """Explain images (B, C, H, W) by a method that is ready to explain."""
    if contrast is None:
        return run(prepared, images, target)
    return explain_contrast(prepared, images, target, contrast)
