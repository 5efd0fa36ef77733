"""IROF: the score's curve as whole segments of the image are removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from xcam.core import Count, Explanation, Metric, MetricSpec, Positive
from xcam.engine import untouched
from xcam.imaging import Fill
from xcam.imaging.superpixels import (
    compute_segment_means,
    divide_into_grid,
    segment_by_slic,
)
from xcam.metrics.inputs import read_target
from xcam.metrics.reading import make_score_reader
from xcam.metrics.removal.pixels import (
    Ties,
    compute_area,
    draw_order,
    rank_values,
    read_ordered_maps,
    remove_progressively,
)
from xcam.models.normalized import Space, enter_space

__all__ = ["IROF", "Segments"]

Segments: TypeAlias = Literal["slic", "grid"]

_LEAST = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class IROF(Metric):
    """IROF, iterative removal of features: the area over the curve, a share of its box.

    The image is cut into L segments, which are replaced by the mean color one after the other,
    that of the highest mean attribution first: IROF = 1 − ∫ f_j / f_0, with f_j the probability of
    the explained class after j of them, by trapezoids over j/L in [0, 1] (Rieger and Hansen, 2020,
    arXiv:2003.08747). The curve begins at f_0 / f_0 = 1, which common code leaves out, as it does
    the division by L. An f_0 below 1e-12 counts as 1e-12.

    Attributes:
        segments: `"slic"` superpixels, or a `"grid"` of rectangles.
        n_segments: L, about, and exactly the number of steps of the curve: where the image has
            another number of segments, the curve is read between its points.
        compactness: Of the superpixels: the weight of a cell's side against the image's range of
            colors. The higher, the nearer to squares.
        fill: What stands in for a segment: the image's mean color, or see
            `xcam.imaging.make_fill`.
        space: Where segments are cut and replaced: before the model's own normalization
            (`"input"`), or after it.
        ties: How segments of equal means are ordered: in `"scan"` order, in `"reverse"`, or in a
            `"random"` order an image.
        seed: Of that random order.
    """

    segments: Segments = "slic"
    n_segments: Count = 100
    compactness: Positive = 0.1
    fill: Fill = "mean"
    space: Space = "input"
    ties: Ties = "scan"
    seed: int = 0

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="irof",
        title="IROF",
        paper="Rieger and Hansen, 2020, arXiv:2003.08747",
        formula="1 − area under f_j / f_0, segments by mean attribution",
        higher_is_better=True,
        bounds=(float("-inf"), 1.0),
        cost="n_segments + 1",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B, n_segments + 1) ratios f_j / f_0; see `Metric.score`."""
        maps = read_ordered_maps(explanation, images, self.ties)
        target = read_target(explanation, images)
        with untouched(model), torch.no_grad():
            inner, pixels = enter_space(model, images, self.space)
            places, used = self._places(pixels, maps)
            counts = torch.arange(max(self.n_segments, int(used.max())) + 1)
            read = make_score_reader(target, "prob")
            scores = remove_progressively(
                inner, pixels, places, counts, read, self.fill, label="irof"
            )
        ratios = scores / scores[:, :1].clamp(min=_LEAST)
        return _stretch(ratios, used, self.n_segments)

    def _places(self, pixels: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rank of each pixel's segment, (B, H, W), and the number of segments, (B,)."""
        cells, (rows, columns) = divide_into_grid(
            (pixels.shape[2], pixels.shape[3]), self.n_segments
        )
        if self.segments == "slic":
            labels = segment_by_slic(pixels, self.n_segments, self.compactness)
        else:
            labels = cells.to(pixels.device).expand_as(maps)
        means, sizes = compute_segment_means(maps[:, None], labels, rows * columns)
        values = means[:, 0].where(sizes > 0, -torch.inf)  # those unused come last
        ranks = rank_values(values, draw_order(pixels, rows * columns, self.ties, self.seed))
        return ranks.gather(1, labels.flatten(1)).view_as(labels), (sizes > 0).sum(1)

    def finish(self, mean: Tensor) -> Tensor:
        """Return one minus the area under the mean curve."""
        return 1 - compute_area(mean)

    def curve(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean ratio over the share of segments removed."""
        return torch.linspace(0, 1, self.n_segments + 1, device=mean.device), mean

    @property
    def curve_axes(self) -> tuple[str, str]:
        """Return what the axes of the curve are."""
        return "share of segments removed", "ratio to the clean probability"


def _stretch(curves: Tensor, used: Tensor, steps: int) -> Tensor:
    """Return the first `used` steps of each curve as a curve of `steps` steps, read linearly.

    Rounding to whole segments instead would let the removal lag behind j/L and lower the score.

    Args:
        curves: (B, P).
        used: (B,) int64, above 0 and below P.
        steps: Of the result, (B, steps + 1).
    """
    places = torch.arange(steps + 1, device=curves.device) * used[:, None]
    before = places // steps
    after = (before + 1).minimum(used[:, None])
    share = (places % steps).to(curves.dtype) / steps
    return torch.lerp(curves.gather(1, before), curves.gather(1, after), share)
