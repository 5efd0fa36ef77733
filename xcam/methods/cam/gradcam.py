"""Grad-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Output, Target
from xcam.engine import Layer
from xcam.methods.cam.features import capture_activations_and_gradients, weight_channels

__all__ = ["GradCAM"]


@dataclass(frozen=True)
class GradCAM(Method):
    """Grad-CAM: a layer's channels, weighted by their mean gradient.

    M = Σ_k w_k A_k with w_k = mean_ij ∂y/∂A_k,ij (Selvaraju et al., 2017, arXiv:1610.02391). The
    paper's final ReLU is left to `relu`, so that the map says where the score is lowered, too.
    White Box's GC is `layer` = the last convolution itself, before its batch norm and ReLU,
    `output="prob"` and `relu=True`.

    Attributes:
        layer: Name or module; None for the model's default layer.
        output: What of the output is y.
        relu: Whether to cut the map at zero, as published.
    """

    layer: Layer | None = None
    output: Output = "logit"
    relu: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="gradcam",
        title="Grad-CAM",
        paper="Selvaraju et al., 2017, arXiv:1610.02391",
        family="cam",
        cost="1 forward + tail backward",
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, h, w) at the layer's size; see `Method.maps`."""
        activation, gradient = capture_activations_and_gradients(
            model, images, target, self.layer, self.output
        )
        maps = weight_channels(activation, gradient.mean((2, 3)))
        return maps.relu() if self.relu else maps
