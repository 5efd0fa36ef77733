"""XGrad-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import MethodSpec, Output, Target
from xcam.engine import Layer
from xcam.methods.cam.channels import ChannelMethod
from xcam.methods.cam.features import capture_activations_and_gradients, weight_channels

__all__ = ["XGradCAM"]


@dataclass(frozen=True)
class XGradCAM(ChannelMethod):
    """XGrad-CAM: a layer's channels, weighted by their gradient where they are active.

    M = Σ_k w_k A_k with w_k = Σ_ij (A_k,ij / Σ_ab A_k,ab) ∂y/∂A_k,ij, and 0 for a silent channel
    (Fu et al., 2020, arXiv:2008.02312). On a layer without negative values, for which the method
    was made, w_k is a mean of the channel's gradients, and M adds up to what HiResCAM's map adds up
    to. On a signed layer Σ_ab A_k,ab may come close to 0, and a few channels of arbitrary weight
    make up the map; hence w_k is cut to the range of the gradients that it is to be a mean of.

    Attributes:
        layer: Name or module; None for the model's default layer.
        output: What of the output is y.
        bounded: Whether to cut w_k to that range, which changes nothing on a layer without
            negative values. False leaves the quotient as it is, as grad-cam and torchcam do.
        relu: Whether to cut the map at zero.
    """

    layer: Layer | None = None
    output: Output = "logit"
    bounded: bool = True
    relu: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="xgradcam",
        title="XGrad-CAM",
        paper="Fu et al., 2020, arXiv:2008.02312",
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
        mass, total = (gradient * activation).sum((2, 3)), activation.sum((2, 3))
        weights = torch.where(total != 0, mass / total.where(total != 0, 1), 0)
        if self.bounded:
            weights = weights.clamp(gradient.amin((2, 3)), gradient.amax((2, 3)))
        return weight_channels(activation, weights)
