"""Convolution output: a layer's mean channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Target
from xcam.engine import Layer
from xcam.methods.cam.features import capture_activations

__all__ = ["ConvOutput"]


@dataclass(frozen=True)
class ConvOutput(Method):
    """Convolution output: where a layer is active, whatever the class.

    M = mean_k A_k, the CO of the White Box project (TooTouch, 2020, WhiteBox-Part1), which reads
    the output of the last block of convolutions.

    Attributes:
        layer: Name or module; None for the model's default layer.
        relu: Whether to cut the map at zero.
    """

    layer: Layer | None = None
    relu: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="conv_output",
        title="Convolution output",
        aliases=("convolution_output",),
        paper="TooTouch, 2020, WhiteBox-Part1",
        family="cam",
        cost="1 forward",
        class_specific=False,
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, h, w) at the layer's size; see `Method.maps`."""
        maps = capture_activations(model, images, target, self.layer).mean(1)
        return maps.relu() if self.relu else maps
