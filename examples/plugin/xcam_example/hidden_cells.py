"""How far the score falls when a cell of the image is hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam import Method, MethodSpec, Target
from xcam.core import Output
from xcam.engine import forward
from xcam.engine.chunks import chunks

__all__ = ["HiddenCells", "cell_grid"]


@dataclass(frozen=True)
class HiddenCells(Method):
    """Show how far the score falls when a cell of the image is hidden.

    M_ij = f(x) − f(x with cell ij in the image's mean colour), for a grid of cells (Zeiler and
    Fergus, 2014, arXiv:1311.2901, who slide a grey square).

    Attributes:
        cells: Cells along each side.
        output: What of the output is f.
    """

    cells: int = 7
    output: Output = "logit"

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="hidden_cells",
        title="Hidden cells",
        paper="Zeiler and Fergus, 2014, arXiv:1311.2901",
        family="perturbation",
        cost="1 + cells² forwards",
    )

    def __post_init__(self) -> None:
        """Refuses a grid that hides everything or nothing."""
        if not isinstance(self.cells, int) or self.cells < 2:
            raise ValueError(f"cells must be an int of at least 2, got {self.cells!r}")

    @torch.no_grad()
    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """See `Method.maps`; gives (B, cells, cells)."""
        prediction = forward.call(model, images)
        target.bind(prediction)
        clean = target.scores(prediction, output=self.output)
        count = self.cells**2

        def step(part: slice) -> Tensor:
            pairs = torch.arange(part.start, part.stop, device=images.device)
            rows = pairs // count
            hidden = self._hide(images[rows], pairs % count)
            return target.scores(forward.call(model, hidden), rows, output=self.output)

        parts = chunks(len(images) * count, step, images, label="hidden_cells")
        scores = torch.cat([scores for _, scores in parts])
        return clean[:, None, None] - scores.view(-1, self.cells, self.cells)

    def _hide(self, images: Tensor, cells: Tensor) -> Tensor:
        """Each of (R, C, H, W) images with one cell, of number (R,), in its mean colour."""
        hidden = cell_grid(images, self.cells) == cells[:, None, None, None]  # (R, 1, H, W)
        return torch.where(hidden, images.mean((2, 3), keepdim=True), images)


def cell_grid(images: Tensor, cells: int) -> Tensor:
    """Which of cells × cells each pixel of (…, H, W) lies in, (H, W) int64."""
    height, width = images.shape[-2:]
    y = torch.arange(height, device=images.device) * cells // height
    x = torch.arange(width, device=images.device) * cells // width
    return y[:, None] * cells + x
