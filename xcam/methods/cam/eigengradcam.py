"""Eigen-Grad-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Output, Target
from xcam.engine import Layer
from xcam.methods.cam.features import capture_activations_and_gradients
from xcam.methods.cam.projection import project_on_principal_axis

__all__ = ["EigenGradCAM"]


@dataclass(frozen=True)
class EigenGradCAM(Method):
    """Eigen-Grad-CAM: Eigen-CAM of a layer's activations times their gradients.

    M = X v, X being the (h·w × C) matrix of ∂y/∂A ⊙ A, centered over the positions, and v its first
    right singular vector (Gildenblat et al., 2021, the library grad-cam, after Muhammad and Yeasin,
    2020, arXiv:2008.00299). Of the two signs it is the one that correlates positively with
    HiResCAM's map, so that positive raises the score; where the two are uncorrelated, the one in
    which M's value of largest magnitude is positive.

    Attributes:
        layer: Name or module; None for the model's default layer.
        output: What of the output is y.
        relu: Whether to cut the map at zero.
    """

    layer: Layer | None = None
    output: Output = "logit"
    relu: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="eigengradcam",
        title="Eigen-Grad-CAM",
        paper="Gildenblat et al., 2021, grad-cam; after Muhammad and Yeasin, arXiv:2008.00299",
        family="cam",
        cost="1 forward + tail backward",
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, h, w) at the layer's size; see `Method.maps`."""
        activation, gradient = capture_activations_and_gradients(
            model, images, target, self.layer, self.output
        )
        product = gradient * activation
        maps = project_on_principal_axis(product, product.mean(1))
        return maps.relu() if self.relu else maps
