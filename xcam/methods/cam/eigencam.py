"""Eigen-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Target
from xcam.engine import Layer
from xcam.methods.cam.features import capture_activations
from xcam.methods.cam.projection import project_on_principal_axis

__all__ = ["EigenCAM"]


@dataclass(frozen=True)
class EigenCAM(Method):
    """Eigen-CAM: what varies most over a layer's positions, whatever the class.

    M = X v, X being the (h·w × C) activations, centered over the positions, and v their first right
    singular vector (Muhammad and Yeasin, 2020, arXiv:2008.00299). A singular vector's sign is
    arbitrary; here M correlates positively with mean_k max(A_k, 0), which is the mean channel on a
    layer without negative values. Where it does not correlate with it at all, M's value of largest
    magnitude is positive.

    Attributes:
        layer: Name or module; None for the model's default layer.
        relu: Whether to cut the map at zero.
    """

    layer: Layer | None = None
    relu: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="eigencam",
        title="Eigen-CAM",
        paper="Muhammad and Yeasin, 2020, arXiv:2008.00299",
        family="cam",
        cost="1 forward",
        class_specific=False,
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, h, w) at the layer's size; see `Method.maps`."""
        activation = capture_activations(model, images, target, self.layer)
        maps = project_on_principal_axis(activation, activation.relu().mean(1))
        return maps.relu() if self.relu else maps
