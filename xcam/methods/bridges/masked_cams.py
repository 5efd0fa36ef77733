"""SS-CAM's and IS-CAM's formulas: Score-CAM with noisy and with weakened masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.core import Target
from xcam.engine.masking import masked_scores
from xcam.imaging import normalize
from xcam.methods.cam.features import capture_activations, weight_channels
from xcam.methods.gradient.noisy_copies import draw_noise
from xcam.methods.perturbation.scorecam import find_varying_channels

__all__ = ["explain_integrated", "explain_smoothed"]


def explain_smoothed(method: Any, model: nn.Module, images: Tensor, target: Target) -> Tensor:  # noqa: ANN401
    """Weight channels by their mean score under masks with noise; SS-CAM."""

    def change(masks: Tensor, channels: Tensor, samples: list[int]) -> Tensor:
        drawn = {sample: draw_noise(shape, method.seed, sample) for sample in set(samples)}
        picked = zip(channels.tolist(), samples, strict=True)
        noises = torch.stack([drawn[sample][channel] for channel, sample in picked])
        noise: float = method.noise
        return masks + noise * noises.to(masks)

    activation = capture_activations(model, images, target, method.layer)
    shape = torch.Size((activation.shape[1], *images.shape[2:]))
    return _weight_by_scores(method, model, images, target, activation, change)


def explain_integrated(method: Any, model: nn.Module, images: Tensor, target: Target) -> Tensor:  # noqa: ANN401
    """Weight channels by their mean score under masks times Σ_{j ≤ i} j / n; IS-CAM."""
    steps = torch.arange(1, method.n_samples + 1).cumsum(0) / method.n_samples

    def change(masks: Tensor, channels: Tensor, samples: list[int]) -> Tensor:
        strengths: Tensor = steps[samples].to(masks)
        return masks * strengths[:, None, None]

    activation = capture_activations(model, images, target, method.layer)
    return _weight_by_scores(method, model, images, target, activation, change)


def _weight_by_scores(
    method: Any,  # noqa: ANN401
    model: nn.Module,
    images: Tensor,
    target: Target,
    activation: Tensor,
    change: Callable[[Tensor, Tensor, list[int]], Tensor],
) -> Tensor:
    """Weight channels by a softmax of their mean score over n samples of changed masks."""
    alive = find_varying_channels(activation)
    pairs, count = alive.nonzero(), method.n_samples
    size = (images.shape[2], images.shape[3])

    def masks(part: slice) -> tuple[Tensor, Tensor]:
        index = torch.arange(part.start, part.stop, device=images.device)
        rows, channels = pairs[index // count].unbind(1)
        low = normalize(activation[rows, channels])
        enlarged = F.interpolate(low[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        samples = [number % count for number in range(part.start, part.stop)]
        return rows, change(enlarged, channels, samples)

    name: str = method.spec.name
    scores = masked_scores(
        model, images, target, len(pairs) * count, masks, method.output, label=name
    )
    means = scores.view(-1, count).mean(1)
    filled_in = means.new_full(alive.shape, -torch.inf).masked_scatter(alive, means).softmax(1)
    return weight_channels(activation, torch.where(alive, filled_in, 0)).sum(1)
