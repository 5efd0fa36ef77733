"""Convolution output: a layer's mean channel."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Target
from xcam.engine import Layer
from xcam.methods.cam.features import capture_activations
from xcam.methods.postprocessing import WHITE_BOX_PICTURES, Rendering, render

__all__ = ["ConvOutput"]


@dataclass(frozen=True)
class ConvOutput(Method):
    """Convolution output: where a layer is active, whatever the class.

    M = mean_k A_k, the CO of the White Box project (TooTouch, 2020, WhiteBox-Part1), which reads
    the output of the last block of convolutions (`layer="features.11"` of its small nets).

    Attributes:
        layer: Name or module; None for the model's default layer.
        relu: Whether to cut the map at zero.
        rendering: None, or White Box's 8-bit picture at the image's size: `"gray"`, or `"jet"`, the
            colors (B, 3, H, W) by which it ranked maps of color images. Their order is not the
            map's: its maximum is dark red, and the highest red, green and blue lie below it.
        preset: `"whitebox"` sets rendering="gray", `"whitebox_jet"` rendering="jet".
    """

    layer: Layer | None = None
    relu: bool = False
    rendering: Rendering | None = None
    preset: InitVar[str | None] = None

    presets: ClassVar = WHITE_BOX_PICTURES
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
        """Return raw maps, (B, h, w) at the layer's size, or rendered; see `Method.maps`."""
        maps = capture_activations(model, images, target, self.layer).mean(1)
        maps = maps.relu() if self.relu else maps
        if self.rendering is None:
            return maps
        return render(maps, (images.shape[2], images.shape[3]), self.rendering)
