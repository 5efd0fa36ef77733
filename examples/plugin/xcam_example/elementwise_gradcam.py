"""Grad-CAM, element by element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam import Method, MethodSpec, Target
from xcam.core import Output
from xcam.engine import Layer
from xcam.methods.cam.features import capture_activations_and_gradients

__all__ = ["ElementwiseGradCAM"]


@dataclass(frozen=True)
class ElementwiseGradCAM(Method):
    """Grad-CAM without pooled gradients: only what raises the score counts, cell by cell.

    M = Σ_k ReLU(∂y/∂A_k ⊙ A_k) (Pillai and Pirsiavash, 2021, AAAI).

    Attributes:
        layer: Name or module; None for the model's default layer.
        output: What of the output is y.
    """

    layer: Layer | None = None
    output: Output = "logit"

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="elementwise_gradcam",
        title="Elementwise Grad-CAM",
        paper="Pillai and Pirsiavash, 2021, AAAI",
        family="cam",
        cost="1 forward + tail backward",
        signed=False,
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return (B, h, w) at the layer's size; see `Method.maps`."""
        activation, gradient = capture_activations_and_gradients(
            model, images, target, self.layer, self.output
        )
        return (activation * gradient).relu().sum(1)
