"""Cell correlation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam import Explanation, Metric, MetricSpec
from xcam.core import Output
from xcam.engine import untouched
from xcam.metrics.inputs import read_maps, read_target
from xcam_example.hidden_cells import HiddenCells, cell_grid

__all__ = ["CellCorrelation"]


@dataclass(frozen=True)
class CellCorrelation(Metric):
    """Cell correlation: does the score fall most where the map is highest?

    r = Pearson over a grid of cells between the map's sum in a cell and f(x) − f(x with the cell in
    the image's mean colour), after the faithfulness correlation of Bhatt et al. (2020,
    arXiv:2005.00631), who hide random sets of features. A flat map has r = 0. Higher is better.

    Attributes:
        cells: Cells along each side.
        output: What of the output is f.
    """

    cells: int = 4
    output: Output = "logit"

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="cell_correlation",
        title="Cell correlation",
        paper="after Bhatt et al., 2020, arXiv:2005.00631",
        formula="Pearson(Σ map in a cell, f(x) − f(x without the cell))",
        higher_is_better=True,
        bounds=(-1.0, 1.0),
        cost="cells² + 1",
    )

    def __post_init__(self) -> None:
        """Refuses a grid that has nothing to compare."""
        if not isinstance(self.cells, int) or self.cells < 2:
            raise ValueError(f"cells must be an int of at least 2, got {self.cells!r}")

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """See `Metric.score`; gives (B,) correlations."""
        maps, target = read_maps(explanation, images), read_target(explanation, images)
        with untouched(model), torch.no_grad():
            falls = HiddenCells(self.cells, self.output).maps(model, images, target)
        places = cell_grid(images, self.cells).flatten()
        sums = maps.new_zeros(len(maps), self.cells**2).index_add(1, places, maps.flatten(1))
        return correlation(sums, falls.flatten(1))


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's r of each row of two (B, N); 0 where one of them hardly varies."""

    def standard(values: Tensor) -> Tensor:
        values = values.double()
        centered = values - values.mean(1, keepdim=True)
        norms = centered.norm(dim=1, keepdim=True)
        varies = norms > 1e-6 * values.norm(dim=1, keepdim=True)
        return torch.where(varies, centered / norms.where(varies, 1), 0)

    return (standard(first) * standard(second)).sum(1).clamp(-1, 1).float()
