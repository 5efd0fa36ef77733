"""Similarity of two maps: rank correlation, structural similarity, overlap of their tops."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from xcam.imaging import is_flat, normalize_signed
from xcam.metrics.precision import to_finest

__all__ = ["Similarity", "compare_maps", "correlate_ranks", "measure_overlap", "measure_ssim"]

Similarity: TypeAlias = Literal["spearman", "ssim"]

_WINDOW = 7  # pixels a side, as scikit-image has it
_K1, _K2 = 0.01, 0.03  # of Wang et al., 2004


def compare_maps(first: Tensor, second: Tensor, similarity: Similarity, absolute: bool) -> Tensor:
    """Return the similarity (B,), in [−1, 1], of maps (B, H, W).

    Args:
        first: The one.
        second: The other.
        similarity: `"spearman"`, see `correlate_ranks`, or `"ssim"`, see `measure_ssim`.
        absolute: Whether the magnitudes are compared.

    Returns:
        (B,) float32.
    """
    if absolute:
        first, second = first.abs(), second.abs()
    compare = correlate_ranks if similarity == "spearman" else measure_ssim
    return compare(first, second)


def correlate_ranks(first: Tensor, second: Tensor) -> Tensor:
    """Return Spearman's ρ (B,) over the pixels of maps (B, H, W), equal values sharing their ranks.

    A flat map has no order: it is like another flat one, 1, and unlike any other, 0.
    """
    flat = is_flat(first), is_flat(second)
    a, b = _rank(first), _rank(second)
    scale = a.norm(dim=1) * b.norm(dim=1)
    found: Tensor = (a * b).sum(1) / scale.where(scale > 0, 1)
    found = found.masked_fill(flat[0] | flat[1], 0).masked_fill(flat[0] & flat[1], 1)
    return found.clamp(-1, 1).float()


def _rank(maps: Tensor) -> Tensor:
    """Return twice the ranks of the pixels (B, H·W), less their mean."""
    values = maps.flatten(1).contiguous()
    ascending = values.sort(1).values
    below = torch.searchsorted(ascending, values)
    up_to = torch.searchsorted(ascending, values, right=True)
    ranks = to_finest(below + up_to)
    return ranks - ranks.mean(1, keepdim=True)


def measure_ssim(first: Tensor, second: Tensor) -> Tensor:
    """Return the structural similarity (B,) of maps (B, H, W), each divided by its largest |value|.

    The mean over windows of 7 pixels a side (or what fits into the map) of

        (2μ₁μ₂ + C₁) (2σ₁₂ + C₂) / ((μ₁² + μ₂² + C₁) (σ₁² + σ₂² + C₂)),

    with C = (0.01 R)² and (0.03 R)², R the range of both maps together (Wang et al., 2004). Two
    flat maps are alike, 1.
    """
    a, b = (to_finest(normalize_signed(maps))[:, None] for maps in (first, second))
    side = min(_WINDOW, *a.shape[2:])
    side -= 1 - side % 2
    correction = side**2 / max(side**2 - 1, 1)  # of the sample's covariance

    def average(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, side, stride=1)

    mean_a, mean_b = average(a), average(b)
    variance_a = correction * (average(a * a) - mean_a**2)
    variance_b = correction * (average(b * b) - mean_b**2)
    covariance = correction * (average(a * b) - mean_a * mean_b)
    both = torch.cat([a, b], 1).flatten(1)
    extent = (both.amax(1) - both.amin(1))[:, None, None, None]
    c1, c2 = (_K1 * extent) ** 2, (_K2 * extent) ** 2
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    below = (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    found: Tensor = (above / below.where(extent > 0, 1)).where(extent > 0, 1)
    return found.mean((1, 2, 3)).clamp(-1, 1).float()


def measure_overlap(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Return how much (B,), in [0, 1], the highest pixels of two maps (B, H, W) have in common.

    |top(first) ∩ top(second)| / k, the top being the k = max(1, round(share · H·W)) highest pixels;
    of equal ones those that come first, row after row.
    """
    pixels = first.shape[1] * first.shape[2]
    k = max(1, round(share * pixels))
    tops = []
    for maps in (first, second):
        order = maps.flatten(1).sort(dim=1, descending=True, stable=True).indices[:, :k]
        top = torch.zeros(len(maps), pixels, dtype=torch.bool, device=maps.device)
        tops.append(top.scatter_(1, order, True))
    return (tops[0] & tops[1]).sum(1) / k
