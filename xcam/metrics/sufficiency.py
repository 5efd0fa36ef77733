"""Sufficiency: do images with the same explanation get the same prediction?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.core import Count, Explanation, Metric, MetricSpec, check_logits
from xcam.engine import untouched
from xcam.engine.clean import clean_logits
from xcam.imaging.superpixels import compute_segment_means, divide_into_grid
from xcam.metrics.inputs import read_maps

__all__ = ["Sufficiency"]


@dataclass(frozen=True, eq=False, repr=False)
class Sufficiency(Metric):
    """Sufficiency: the probability that two images with the same explanation get the same class.

    Mean over x of P(argmax f(x') = argmax f(x) | e(x') = e(x)) (Dasgupta et al., 2022,
    arXiv:2202.00734), x' over the images that are scored. It takes explanations of finitely many
    kinds: e is the cell of a grid that has the map's highest mean. As x is one of the x', few
    images score too high; scores compare between methods over the same images. Quantus compares the
    distance of maps to a threshold, within a batch. In [0, 1], higher is better; a statistic of an
    image has cells × classes values, 9,000 for ImageNet.

    Attributes:
        n_segments: Cells of the grid, about: rectangles, as square as they get.
    """

    n_segments: Count = 9

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="sufficiency",
        title="Sufficiency",
        paper="Dasgupta et al., 2022, arXiv:2202.00734",
        formula="Σ_e Σ_k p(e, k)² / p(e), e the map's highest cell, k the predicted class",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        cost="1",
        known_failures={
            "oracle above random": "the place of an object that may be anywhere tells no class"
        },
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B, cells, K), 1 at the map's cell and the image's class; see `Metric.score`."""
        maps = read_maps(explanation, images, order=True)
        cells, (rows, columns) = divide_into_grid((maps.shape[1], maps.shape[2]), self.n_segments)
        labels = cells.to(images.device).expand_as(maps)
        means, _ = compute_segment_means(maps[:, None], labels, rows * columns)
        with untouched(model):
            logits = check_logits(clean_logits(model, images, "sufficiency"))
        if logits.shape[1] == 1:  # for its class if positive
            logits = torch.cat([torch.zeros_like(logits), logits], 1)
        kinds = F.one_hot(means[:, 0].argmax(1), rows * columns)
        classes = F.one_hot(logits.argmax(1), logits.shape[1])
        return (kinds[:, :, None] * classes[:, None]).float()

    def finish(self, mean: Tensor) -> Tensor:
        """Return Σ p(e, k)² / p(e) from the joint distribution (…, cells, K)."""
        kinds = mean.sum(-1)
        return (mean.square().sum(-1) / kinds.where(kinds > 0, 1)).sum(-1)
