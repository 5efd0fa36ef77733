"""HiResCAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import MethodSpec, Output, Target
from xcam.engine import Layer
from xcam.methods.cam.channels import ChannelMethod
from xcam.methods.cam.features import capture_activations_and_gradients

__all__ = ["HiResCAM"]


@dataclass(frozen=True)
class HiResCAM(ChannelMethod):
    """HiResCAM: a layer's activations times their gradients, place by place.

    M = Σ_k ∂y/∂A_k ⊙ A_k (Draelos and Carin, 2020, arXiv:2011.08891). Where the rest of the net is
    linear, the map adds up to the score without its bias; behind global average pooling it is
    Grad-CAM's map.

    Attributes:
        layer: Name or module; None for the model's default layer.
        output: What of the output is y.
        relu: Whether to cut the map at zero.
    """

    layer: Layer | None = None
    output: Output = "logit"
    relu: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="hirescam",
        title="HiResCAM",
        paper="Draelos and Carin, 2020, arXiv:2011.08891",
        family="cam",
        cost="1 forward + tail backward",
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, h, w) at the layer's size; see `Method.maps`."""
        maps = self.channels(model, images, target).sum(1)
        return maps.relu() if self.relu else maps

    def channels(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return the weighted channels, (B, C, h, w); see `ChannelMethod`."""
        activation, gradient = capture_activations_and_gradients(
            model, images, target, self.layer, self.output
        )
        return gradient * activation
