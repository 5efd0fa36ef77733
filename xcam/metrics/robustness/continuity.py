"""Continuity: how much the map changes while the image is moved sideways."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from xcam.core import Count, Explanation, Metric, MetricSpec
from xcam.imaging import Fill, make_fill
from xcam.metrics.inputs import read_maps, require_method
from xcam.metrics.precision import to_finest
from xcam.metrics.robustness.neighbors import explain_copies, scale_by_largest

__all__ = ["Continuity", "shift_images"]


@dataclass(frozen=True, eq=False, repr=False)
class Continuity(Metric):
    """Continuity: how much the map changes, at most, while the image is moved sideways.

    max over shifts x' of ‖R(x) − R(x')‖₁ / ‖x − x'‖₂, with R the map at the image's size (Montavon
    et al., 2018, arXiv:1706.07979). The image moves from −W + 2W/n_steps to W pixels to the right,
    from almost out of sight to wholly; where it leaves its place, x' is unchanged and left out. The
    authors name no domain for x' and show an image moved like this. Quantus also takes magnitudes,
    divided by the largest (in a batch, by that of all its maps: `normalize=True` for one image),
    and fills with the lowest value; its steps are these where n_steps divides 2W. Lower is better.
    A map that follows the image is not continuous in this sense: constant maps alone get 0.

    Attributes:
        n_steps: How many shifts there are.
        fill: What is seen where the image has moved away.
        normalize: Whether to divide each map by its largest magnitude; without, the units of a map
            are part of the number.
    """

    n_steps: Count = 28
    fill: Fill = "zero"
    normalize: bool = False

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="continuity",
        title="Continuity",
        paper="Montavon et al., 2018, arXiv:1706.07979",
        formula="max of ‖R(x) − R(x′)‖₁ / ‖x − x′‖₂ over shifts",
        higher_is_better=False,
        bounds=(0.0, math.inf),
        question="robustness",
        cost="n_steps explanations",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) rates of change; see `Metric.score`."""
        require_method(explanation, self.spec.name)
        own, count = self._scale(read_maps(explanation, images)), len(images)
        background, width = make_fill(images, self.fill), images.shape[3]
        steps = torch.arange(1, self.n_steps + 1, device=images.device)
        shifts = (2 * width * steps).div(self.n_steps, rounding_mode="floor") - width

        def copy(part: slice) -> tuple[Tensor, Tensor]:
            places = torch.arange(part.start, part.stop, device=images.device)
            rows = places % count
            return rows, shift_images(images[rows], shifts[places // count], background[rows])

        def measure(rows: Tensor, copies: Tensor, again: Explanation) -> Tensor:
            change = (self._scale(again.maps) - own[rows]).flatten(1).abs().sum(1)
            distance = vector_norm(to_finest(copies - images[rows]).flatten(1), dim=1)
            return torch.where(distance > 0, change / distance.where(distance > 0, 1), 0)

        found = explain_copies(model, images, explanation, self.n_steps, copy, measure)
        return found.view(self.n_steps, count).amax(0)

    def _scale(self, maps: Tensor) -> Tensor:
        return scale_by_largest(to_finest(maps)) if self.normalize else to_finest(maps)


def shift_images(images: Tensor, shifts: Tensor, background: Tensor) -> Tensor:
    """Return images (R, C, H, W) moved to the right by (R,) pixels, negative ones to the left.

    Args:
        images: What is moved.
        shifts: int64.
        background: (R, C, H, W), what is seen where they have moved away.
    """
    width = images.shape[3]
    source = torch.arange(width, device=images.device) - shifts[:, None]
    inside = ((source >= 0) & (source < width))[:, None, None]
    moved = images.gather(3, source.clamp(0, width - 1)[:, None, None].expand_as(images))
    return torch.where(inside, moved, background)
