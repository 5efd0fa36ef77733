"""Superpixels by SLIC, on the images' device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["compute_segment_means", "divide_into_grid", "segment_by_slic"]

_ROUNDS = 10  # of k-means, as in the paper


def divide_into_grid(size: tuple[int, int], count: int) -> tuple[Tensor, tuple[int, int]]:
    """Divide an image into about `count` rectangles, as square as they get.

    Args:
        size: (H, W) of the image.
        count: Wanted; at least 1.

    Returns:
        (H, W) int64 labels from 0, row by row, and how many rows and columns there are.
    """
    side = (size[0] * size[1] / count) ** 0.5
    rows, columns = (max(1, min(length, round(length / side))) for length in size)
    row = torch.arange(size[0]) * rows // size[0]
    column = torch.arange(size[1]) * columns // size[1]
    return row[:, None] * columns + column, (rows, columns)


def segment_by_slic(images: Tensor, count: int, compactness: float) -> Tensor:
    """Segment images by SLIC (Achanta et al., 2012): k-means of color and place, from a grid.

    D² = d_colour² + (compactness · d_place / S)², with the color in units of the image's range
    and S the side of a cell of the grid. A pixel joins one of the nine centers that began around
    it. Segments need not be connected.

    Args:
        images: (B, C, H, W); each is divided by itself.
        count: Of the segments, about.
        compactness: Above 0; the higher, the nearer to squares.

    Returns:
        (B, H, W) int64 labels below the number of cells of `grid`, some of which may be unused.
    """
    size = (images.shape[2], images.shape[3])
    cells, shape = divide_into_grid(size, count)
    cells = cells.to(images.device)
    nine = _around(cells, shape)
    side = (size[0] * size[1] / count) ** 0.5
    features = torch.cat([_colors(images), _places(images) * (compactness / side)], 1)
    labels = cells.expand(len(images), -1, -1)
    for _ in range(_ROUNDS):
        means, sizes = compute_segment_means(features, labels, shape[0] * shape[1])
        labels = _nearest(features, means.where(sizes[:, None] > 0, torch.inf), nine)
    return labels


def compute_segment_means(values: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the mean of values over segments, bit-identical in whichever order a device adds.

    Args:
        values: (B, K, H, W), finite.
        labels: (B, H, W) int64 below `count`.
        count: Of the segments.

    Returns:
        (B, K, count) means, 0 where a segment is empty, and the (B, count) sizes.
    """
    flat = values.float().flatten(2)
    # In whole numbers, whose sum does not depend on the order: labels must not hang on rounding.
    unit = flat.abs().amax(2, keepdim=True) / 2**30
    unit = unit.where(unit > 0, 1)
    where = labels.flatten(1)
    sums = torch.zeros(*flat.shape[:2], count, dtype=torch.int64, device=values.device)
    sums.scatter_add_(2, where[:, None].expand_as(flat), (flat / unit).round().long())
    sizes = torch.zeros(len(labels), count, dtype=torch.int64, device=values.device)
    sizes.scatter_add_(1, where, torch.ones_like(where))
    return sums * unit / sizes[:, None].clamp(min=1), sizes


def _colors(images: Tensor) -> Tensor:
    """Return images (B, C, H, W) in units of each one's range; a single-color image is zeros."""
    low, high = images.float().flatten(1).aminmax(dim=1)
    span = (high - low).where(high > low, 1)
    return (images.float() - low[:, None, None, None]) / span[:, None, None, None]


def _places(images: Tensor) -> Tensor:
    """Return the row and column of each pixel, (B, 2, H, W)."""
    batch, _, height, width = images.shape
    rows = torch.arange(height, device=images.device, dtype=torch.float32)
    columns = torch.arange(width, device=images.device, dtype=torch.float32)
    both = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return both.expand(batch, -1, -1, -1)


def _around(cells: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the cells around that of each pixel, itself first: (9, H, W), doubled at borders."""
    numbers = torch.arange(shape[0] * shape[1], device=cells.device).view(1, *shape).float()
    padded = F.pad(numbers, (1, 1, 1, 1), mode="replicate")[0].long()
    windows = padded.unfold(0, 3, 1).unfold(1, 3, 1).flatten(2).flatten(0, 1)  # (cells, 9)
    return windows[:, [4, 0, 1, 2, 3, 5, 6, 7, 8]][cells].movedim(2, 0)


def _nearest(features: Tensor, means: Tensor, candidates: Tensor) -> Tensor:
    """Return the candidate segment with the nearest mean, (B, H, W) labels."""
    best = features.new_full((len(features), *features.shape[2:]), torch.inf)
    labels = candidates[0].expand_as(best)
    for candidate in candidates:
        distance = (features - means[:, :, candidate]).square().sum(1)
        nearer = distance < best
        best, labels = best.where(~nearer, distance), labels.where(~nearer, candidate)
    return labels
