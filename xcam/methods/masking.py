"""Masks, and the scores of masked images: many (image, mask) pairs, a few at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from xcam import forward
from xcam.core import Score, Target
from xcam.imaging import Fill, filled

__all__ = ["GridMasks", "blended", "masked_scores"]


class GridMasks:
    """RISE's masks (N, H, W) in [0, 1], made only when a slice of them is asked for.

    A grid of s×s cells is enlarged to s+1 cells of ⌈size/s⌉ pixels a side, bilinearly with pixel
    centres aligned and mirrored at the edge (as scikit-image does it), and cropped. That is linear
    and works on each axis alone, so a mask is a product of three small matrices.

    Attributes:
        size: (H, W).
        grids: (N, s, s), the cells: 1 where they are seen.
    """

    def __init__(self, grids: Tensor, offsets: Tensor, size: tuple[int, int]) -> None:
        """Takes what is random about the masks.

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
        """N."""
        return len(self.grids)

    def __getitem__(self, part: slice) -> Tensor:
        """Some of the masks, (n, H, W)."""
        rows, columns = (
            windows[starts[part]]
            for windows, starts in zip(self._windows, self._starts, strict=True)
        )
        return rows.mT @ (self.grids[part] @ columns)


def _axis(cells: int, side: int) -> tuple[int, Tensor]:
    """A cell's side in pixels, and the weights (starts, cells, side) of cells in pixels."""
    cell = -(-side // cells)
    canvas = (cells + 1) * cell
    centres = ((torch.arange(canvas) + 0.5) * cells / canvas - 0.5).abs()
    mirrored = (cells - 1) - ((cells - 1) - centres).abs()
    weights = (1 - (mirrored[:, None] - torch.arange(cells)).abs()).clamp(min=0)
    return cell, weights.unfold(0, side, 1)


def blended(images: Tensor, masks: Tensor, fill: Fill = "zero") -> Tensor:
    """Images (R, C, H, W) seen through masks (R, H, W) in [0, 1]: x ⊙ M + fill ⊙ (1 − M)."""
    masks = masks[:, None].to(images.dtype)
    if isinstance(fill, str) and fill == "zero":
        return images * masks
    return torch.lerp(filled(images, fill), images, masks)


def masked_scores(
    model: nn.Module,
    images: Tensor,
    target: Target,
    pairs: int,
    masks: Callable[[slice], tuple[Tensor, Tensor]],
    score: Score,
    fill: Fill = "zero",
    label: str = "",
) -> Tensor:
    """The scores of many pairs of image and mask, without a graph.

    Args:
        model: The classifier.
        images: (B, C, H, W).
        target: Bound.
        pairs: How many pairs there are.
        masks: Makes a slice of the pairs: which image each is of, (R,) int64, and the masks
            (R, H, W), or (1, H, W) if they share one. Called for a few at a time, so that the
            memory does not grow with their number.
        score: What of the output is read.
        fill: What is seen where the mask is zero.
        label: For the progress bar.

    Returns:
        (pairs,) scores.
    """

    def step(part: slice) -> Tensor:
        rows, seen = masks(part)
        chunk = images if len(images) == 1 else images[rows]
        return target.scores(forward.call(model, blended(chunk, seen, fill)), rows, score=score)

    with torch.no_grad():
        return forward.collect(pairs, step, images, label)
