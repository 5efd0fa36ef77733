"""ADCC and ARCC: harmonic means of coherency, complexity and a measure of faithfulness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Explanation, MetricSpec, NonNegative
from xcam.metrics.masked.coherency import MaskedByMap, measure_coherency, measure_complexity
from xcam.metrics.masked.confidence import compute_relative_drop, measure_confidences
from xcam.metrics.masked.muting import make_masks
from xcam.metrics.removal.road import ROAD, Fractions

__all__ = ["ADCC", "ARCC", "compute_harmonic_mean"]


@dataclass(frozen=True, eq=False, repr=False)
class ADCC(MaskedByMap):
    """ADCC: the harmonic mean of coherency, 1 − complexity and 1 − drop.

    3 / (1/coherency + 1/(1 − complexity) + 1/(1 − AD)) an image, 0 where a term is 0, with AD =
    max(0, p − o) / p of the explained class (Poppi et al., 2021, arXiv:2104.10252). In [0, 1],
    higher is better. The authors' code masks in `space="normalized"`, and takes for p the highest
    probability whatever the class.

    Attributes:
        normalize: Min-max of each map `"before_resize"` or `"after_resize"` to the image's size,
            or None for maps that lie in [0, 1].
        fill: What is seen where the map is 0.
        space: Where the images are masked: as pixels, or after a `Normalized` model's own
            normalization.
    """

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="adcc",
        title="ADCC",
        paper="Poppi et al., 2021, arXiv:2104.10252",
        formula="3 / (1/coherency + 1/(1 − complexity) + 1/(1 − AD))",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        cost="2 + 1 explanation",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B, 4): ADCC, coherency, complexity, drop; see `Metric.score`."""
        masks = make_masks(explanation, images, self.normalize)
        similar = measure_coherency(model, images, explanation, masks, self.fill, self.space)
        covered = measure_complexity(masks)
        p, o = measure_confidences(model, images, explanation, masks, self.fill, self.space)
        drop = compute_relative_drop(p, o).to(covered.dtype)
        return torch.stack(
            [compute_harmonic_mean(similar, 1 - covered, 1 - drop), similar, covered, drop], 1
        )

    def finish(self, mean: Tensor) -> Tensor:
        """Return the mean ADCC; the mean terms follow it in the statistic."""
        return mean[..., 0]


@dataclass(frozen=True, eq=False, repr=False)
class ARCC(MaskedByMap):
    """ARCC: the harmonic mean of coherency, 1 − complexity and ROAD instead of the drop.

    3 / (1/coherency + 1/(1 − complexity) + 1/R) an image, 0 where a term is 0, with R = 2·ROAD cut
    to [0, 1], ROAD the mean over fractions of (LeRF − MoRF)/2 of the class's probability
    (arXiv:2605.14641, as computed by pytorch-grad-cam, which masks and adds noise in
    `space="normalized"`, and takes differences of whatever its target reads). In [0, 1], higher is
    better; a map that orders the pixels worse than chance gets 0.

    Attributes:
        normalize: Min-max of each map `"before_resize"` or `"after_resize"` to the image's size,
            or None for maps that lie in [0, 1].
        fill: What is seen where the map is 0, for coherency.
        space: Where the images are masked and noise is added: as pixels, or after a `Normalized`
            model's own normalization.
        fractions: Of the pixels that ROAD removes, each in [0, 1].
        noise: Standard deviation of ROAD's noise on imputed pixels.
        seed: Of that noise, and of the order of equal values.
    """

    fractions: Fractions = (0.2, 0.4, 0.6, 0.8)
    noise: NonNegative = 0.01
    seed: int = 0

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="arcc",
        title="ARCC",
        paper="arXiv:2605.14641",
        formula="3 / (1/coherency + 1/(1 − complexity) + 1/(2·ROAD))",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        cost="2 × len(fractions) + 1 explanation",
    )

    def _road(self) -> ROAD:
        return ROAD(self.fractions, "prob", self.noise, self.seed, self.space)

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B, 4): ARCC, coherency, complexity, 2·ROAD cut to [0, 1]; see `Metric.score`."""
        masks = make_masks(explanation, images, self.normalize)
        similar = measure_coherency(model, images, explanation, masks, self.fill, self.space)
        covered = measure_complexity(masks)
        road = self._road()
        gap = (2 * road.finish(road.score(model, images, explanation))).clamp(0, 1).float()
        return torch.stack(
            [compute_harmonic_mean(similar, 1 - covered, gap), similar, covered, gap], 1
        )

    def finish(self, mean: Tensor) -> Tensor:
        """Return the mean ARCC; the mean terms follow it in the statistic."""
        return mean[..., 0]


def compute_harmonic_mean(*terms: Tensor) -> Tensor:
    """Return the harmonic mean of terms ≥ 0, which is 0 where one of them is 0."""
    stacked = torch.stack(terms)
    mean = len(terms) / (1 / stacked.where(stacked > 0, 1)).sum(0)
    return torch.where((stacked > 0).all(0), mean, 0)
