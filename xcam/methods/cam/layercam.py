"""LayerCAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import MethodSpec, Output, Positive, Target
from xcam.engine import Layer
from xcam.methods.cam.channels import ChannelMethod
from xcam.methods.cam.features import capture_activations_and_gradients

__all__ = ["LayerCAM"]


@dataclass(frozen=True)
class LayerCAM(ChannelMethod):
    """LayerCAM: a layer's activations times their positive gradients, place by place.

    M = Σ_k max(∂y/∂A_k, 0) ⊙ A_k (Jiang et al., 2021, IEEE TIP 30). For shallow layers, whose maps
    are faint, the paper scales M to tanh(γ max(M, 0) / max_ij M) with γ = 2.

    Attributes:
        layer: Name or module; None for the model's default layer.
        output: What of the output is y.
        gamma: The scale γ for shallow layers, positive; the map is then cut at zero. None for M.
        relu: Whether to cut the map at zero, as published.
    """

    layer: Layer | None = None
    output: Output = "logit"
    gamma: Positive | None = None
    relu: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="layercam",
        title="LayerCAM",
        paper="Jiang et al., 2021, IEEE Transactions on Image Processing 30",
        family="cam",
        cost="1 forward + tail backward",
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, h, w) at the layer's size; see `Method.maps`."""
        maps = self.channels(model, images, target).sum(1)
        if self.gamma is None:
            return maps.relu() if self.relu else maps
        positive = maps.relu()
        highest = positive.amax((1, 2), keepdim=True)
        return (self.gamma * positive / highest.where(highest > 0, 1)).tanh()

    def channels(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return the weighted channels, (B, C, h, w); see `ChannelMethod`."""
        activation, gradient = capture_activations_and_gradients(
            model, images, target, self.layer, self.output
        )
        return gradient.relu() * activation
