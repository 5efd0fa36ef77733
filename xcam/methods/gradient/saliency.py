"""Saliency: vanilla backpropagation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Output, Reduce, Target
from xcam.methods.gradient.input_gradients import compute_clean_gradients

__all__ = ["Saliency"]


@dataclass(frozen=True)
class Saliency(Method):
    """Saliency (vanilla backpropagation): the gradient of the score at the image.

    M = max_c |∂y/∂x_c| (Simonyan et al., 2013, arXiv:1312.6034). White Box's VBP is
    `output="prob"` with `raw` stretched to [0, 1] over all channels, no channel reduced.

    Attributes:
        output: What of the output is y.
        reduce: How the channels become one; `"abs_max"` as published.
    """

    output: Output = "logit"
    reduce: Reduce = "abs_max"

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="saliency",
        title="Saliency",
        aliases=("gradient", "vanilla_gradient"),
        paper="Simonyan et al., 2013, arXiv:1312.6034",
        family="gradient",
        cost="1 forward + backward",
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, the signed gradient, (B, C, H, W); see `Method.maps`."""
        return compute_clean_gradients(model, images, target, self.output)
