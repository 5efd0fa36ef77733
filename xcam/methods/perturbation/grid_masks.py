"""RISE's masks, computed a few at a time."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["GridMasks"]


class GridMasks:
    """RISE's masks (N, H, W) in [0, 1], made only when a slice of them is asked for.

    A grid of s×s cells is enlarged to s+1 cells of ⌈size/s⌉ pixels a side, bilinearly with pixel
    centers aligned and mirrored at the edge (as scikit-image does it), and cropped. That is linear
    and works on each axis alone, so a mask is a product of three small matrices.

    Attributes:
        size: (H, W).
        grids: (N, s, s), the cells: 1 where they are seen.
    """

    def __init__(self, grids: Tensor, offsets: Tensor, size: tuple[int, int]) -> None:
        """Take over the random parts of the masks.

        Args:
            grids: (N, s, s) with s ≥ 2, of the masks' dtype and on their device.
            offsets: (N, 2) in [0, 1), where each crop begins, in cells.
            size: (H, W).
        """
        self.size = size
        self.grids = grids
        axes = [_axis(grids.shape[-1], side) for side in size]
        self._windows = [weights.to(grids) for _, weights in axes]
        starts = [(offsets[:, axis] * cell).long() for axis, (cell, _) in enumerate(axes)]
        self._starts = [start.to(grids.device) for start in starts]

    def __len__(self) -> int:
        """Return the number of masks, N."""
        return len(self.grids)

    def __getitem__(self, part: slice) -> Tensor:
        """Return some of the masks, (n, H, W)."""
        rows, columns = (
            windows[starts[part]]
            for windows, starts in zip(self._windows, self._starts, strict=True)
        )
        return rows.mT @ (self.grids[part] @ columns)


def _axis(cells: int, side: int) -> tuple[int, Tensor]:
    """Return a cell's side in pixels, and the weights (starts, cells, side) of cells in pixels."""
    cell = -(-side // cells)
    canvas = (cells + 1) * cell
    centers = ((torch.arange(canvas) + 0.5) * cells / canvas - 0.5).abs()
    mirrored = (cells - 1) - ((cells - 1) - centers).abs()
    weights = (1 - (mirrored[:, None] - torch.arange(cells)).abs()).clamp(min=0)
    return cell, weights.unfold(0, side, 1)
