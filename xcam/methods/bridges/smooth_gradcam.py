"""Smooth Grad-CAM++'s formula: Grad-CAM++ with derivatives averaged over noisy copies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xcam.core import Target
from xcam.engine.shared import keep_nothing
from xcam.methods.cam.features import (
    capture_activations,
    capture_activations_and_gradients,
    weight_channels,
)
from xcam.methods.gradient.noisy_copies import draw_noise

__all__ = ["explain_smooth_derivatives"]


def explain_smooth_derivatives(
    method: Any,  # noqa: ANN401
    model: nn.Module,
    images: Tensor,
    target: Target,
) -> Tensor:
    """Return Σ_k w_k A_k with w_k = Σ_ij α_k,ij max(D¹_k,ij, 0)."""
    activation = capture_activations(model, images, target, method.layer)
    images = images.detach()
    span = images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)
    powers = torch.zeros(3, *activation.shape, dtype=activation.dtype, device=images.device)
    for sample in range(method.n_samples):
        noise = draw_noise(images.shape[1:], method.seed, sample).to(images)
        with keep_nothing():  # since nobody else explains this copy
            _, gradient = capture_activations_and_gradients(
                model,
                images + method.noise * span * noise,
                target.select(slice(None)),
                method.layer,
                method.output,
            )
        for power in range(3):
            powers[power] += gradient ** (power + 1) / method.n_samples
    first, second, third = powers
    total = (third * activation).sum((2, 3), keepdim=True)
    divisor = 2 * second + total
    alpha = torch.where(divisor != 0, second / divisor.where(divisor != 0, 1), 0)
    return weight_channels(activation, (alpha * first.relu()).sum((2, 3))).sum(1)
