"""Grad-CAM."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import MethodSpec, Output, Target
from xcam.engine import Layer
from xcam.methods.cam.channels import ChannelMethod
from xcam.methods.cam.features import capture_activations_and_gradients, weight_channels
from xcam.methods.postprocessing import Rendering, render

__all__ = ["GradCAM"]


@dataclass(frozen=True)
class GradCAM(ChannelMethod):
    """Grad-CAM: a layer's channels, weighted by their mean gradient.

    M = Σ_k w_k A_k with w_k = mean_ij ∂y/∂A_k,ij (Selvaraju et al., 2017, arXiv:1610.02391). The
    paper's final ReLU is left to `relu`, so that the map says where the score is lowered, too.
    White Box's GC reads the last convolution itself, before its batch norm and ReLU
    (`layer="features.8"` of its nets): `preset="whitebox"`.

    Attributes:
        layer: Name or module; None for the model's default layer.
        output: What of the output is y.
        relu: Whether to cut the map at zero, as published.
        rendering: None, or White Box's 8-bit picture at the image's size: `"gray"`, or `"jet"`, the
            colors (B, 3, H, W) by which it ranked maps of color images. Their order is not the
            map's: its maximum is dark red, and the highest red, green and blue lie below it.
        preset: `"whitebox"` sets output="prob", relu=True and rendering="gray";
            `"whitebox_jet"` sets rendering="jet" instead.
    """

    layer: Layer | None = None
    output: Output = "logit"
    relu: bool = False
    rendering: Rendering | None = None
    preset: InitVar[str | None] = None

    presets: ClassVar = {
        "whitebox": {"output": "prob", "relu": True, "rendering": "gray"},
        "whitebox_jet": {"output": "prob", "relu": True, "rendering": "jet"},
    }
    spec: ClassVar[MethodSpec] = MethodSpec(
        name="gradcam",
        title="Grad-CAM",
        paper="Selvaraju et al., 2017, arXiv:1610.02391",
        family="cam",
        cost="1 forward + tail backward",
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, h, w) at the layer's size, or rendered; see `Method.maps`."""
        maps = self.channels(model, images, target).sum(1)
        maps = maps.relu() if self.relu else maps
        if self.rendering is None:
            return maps
        return render(maps, (images.shape[2], images.shape[3]), self.rendering)

    def channels(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return the weighted channels, (B, C, h, w); see `ChannelMethod`."""
        activation, gradient = capture_activations_and_gradients(
            model, images, target, self.layer, self.output
        )
        return weight_channels(activation, gradient.mean((2, 3)))
