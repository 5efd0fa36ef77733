"""Projection of features on their first principal axis, for the eigen methods."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["project_on_principal_axis"]

# Below this fraction of what it could be, agreement with the guide is rounding noise.
_NO_AGREEMENT = 1e-4


def project_on_principal_axis(features: Tensor, guide: Tensor) -> Tensor:
    """Project the positions of each image on its first right singular vector.

    X is the (h·w × C) matrix of an image's features, centered over the positions; the result is X v
    for the unit vector v that makes its norm largest. Of the two signs it is the one that
    correlates positively with the guide; where the two are uncorrelated, the one in which the
    value of largest magnitude is positive.

    The smaller of the two Gram matrices is taken apart rather than X itself: 49×49 instead of
    49×2048 behind a ResNet-50. In float64, since a Gram matrix squares the condition number.

    Args:
        features: (B, C, h, w).
        guide: (B, h, w), high where the result should be; a mean of the features, or of parts of
            them.

    Returns:
        (B, h, w) of the same dtype; zeros where the features are constant, NaN where they are not
        finite.
    """
    rows = features.double().flatten(2).mT  # (B, h·w, C)
    finite = rows.isfinite().all(2, keepdim=True).all(1, keepdim=True)
    rows = rows.where(finite, 0)
    rows = rows - rows.mean(1, keepdim=True)
    projection = _first_component(rows)
    projection = projection * _sign(projection, guide.double().flatten(1), rows)
    maps = projection.where(finite[:, :, 0], torch.nan).view(len(features), *features.shape[2:])
    return maps.to(features.dtype)


def _first_component(rows: Tensor) -> Tensor:
    """Return X v, (B, n), for matrices X (B, n, C) and their first right singular vectors v."""
    if rows.shape[1] > rows.shape[2]:
        axes: Tensor = torch.linalg.eigh(rows.mT @ rows).eigenvectors
        return (rows @ axes[:, :, -1:]).squeeze(2)
    squares, axes = torch.linalg.eigh(rows @ rows.mT)  # X v = σ u, and X Xᵀ u = σ² u
    norm: Tensor = squares[:, -1:].clamp(min=0).sqrt()
    return axes[:, :, -1] * norm


def _sign(projection: Tensor, guide: Tensor, rows: Tensor) -> Tensor:
    """Return the sign of each projection, 1 or -1, as (B, 1)."""
    agreement = (projection * guide).sum(1, keepdim=True)  # the projection's mean is zero
    # What a mean over the channels of features of this size can reach (Cauchy and Schwarz).
    reach = projection.norm(dim=1, keepdim=True) * rows.square().mean(2).sum(1, keepdim=True).sqrt()
    extreme = projection.gather(1, projection.abs().argmax(1, keepdim=True))
    decisive = torch.where(agreement.abs() > _NO_AGREEMENT * reach, agreement, extreme)
    return torch.where(decisive < 0, -1.0, 1.0)
