"""Grad-CAM++."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import MethodSpec, NonNegative, Target
from xcam.engine import Layer
from xcam.methods.cam.channels import ChannelMethod
from xcam.methods.cam.features import capture_activations_and_gradients, weight_channels

__all__ = ["GradCAMPlusPlus"]


@dataclass(frozen=True)
class GradCAMPlusPlus(ChannelMethod):
    """Grad-CAM++: Grad-CAM with a weight a place, so that several small objects count as well.

    M = Σ_k w_k A_k with w_k = Σ_ij α_k,ij max(g_k,ij, 0), α = g² / (2 g² + g³ Σ_ab A_k,ab) and
    g = ∂y/∂A of the logit y (Chattopadhay et al., 2018, arXiv:1710.11063). This is the paper's
    closed form for the score e^y in a net that is piecewise linear behind the layer; the factor
    e^y, one number an image, is left out. It holds for no other score, hence there is no `output`.
    Made for a layer without negative values.

    The authors' code divides α by its sum over the positions, which the paper does not:
    `normalize_alpha=True`. A channel's weight is then a mean of its positive gradients, not a sum.
    grad-cam adds `epsilon=1e-6` to α's denominator, which outweighs it where gradients are below
    10⁻³. torchcam sums g³ A as a whole over the positions, which is not the published formula.

    Attributes:
        layer: Name or module; None for the model's default layer.
        epsilon: Added to the denominator of α; not negative.
        normalize_alpha: Whether to divide α by Σ_ij α_k,ij, as the authors' code does; a channel
            whose α sum to 0 has weight 0.
        relu: Whether to cut the map at zero, as published.
    """

    layer: Layer | None = None
    epsilon: NonNegative = 0.0
    normalize_alpha: bool = False
    relu: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="gradcam_plusplus",
        title="Grad-CAM++",
        aliases=("gradcam++", "gradcam_pp"),
        paper="Chattopadhay et al., 2018, arXiv:1710.11063",
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
            model, images, target, self.layer, "logit"
        )
        return weight_channels(activation, self._weights(activation, gradient))

    def _weights(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Return w (B, C); α is reduced by g², which would leave float32's range for small g."""
        total = activation.sum((2, 3), keepdim=True)
        denominator = 2 + total * gradient
        if self.epsilon:
            denominator = denominator + self.epsilon / gradient.square()
        is_defined = (gradient != 0) & (denominator != 0)
        divisor = denominator.where(is_defined, 1)
        weights = torch.where(is_defined & (gradient > 0), gradient / divisor, 0).sum((2, 3))
        if self.normalize_alpha:
            alphas = torch.where(is_defined, 1 / divisor, 0).sum((2, 3))
            weights = torch.where(alphas != 0, weights / alphas.where(alphas != 0, 1), 0)
        return weights
