"""Pixel flipping: the score's curve as the highest pixels turn black."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Explanation, Metric, MetricSpec, Output
from xcam.imaging import Fill
from xcam.metrics.removal.pixels import Step, Ties, compute_area, score_curves
from xcam.models.normalized import Space

__all__ = ["PixelFlipping"]


@dataclass(frozen=True, eq=False, repr=False)
class PixelFlipping(Metric):
    """Pixel flipping: the area under the class's logit while the highest pixels turn black.

    AUC = (Σ_k z_k − z_0/2 − z_n/2)/n, z_k = the logit of x without its k·step highest pixels (Bach
    et al., 2015, doi:10.1371/journal.pone.0130140). Deletion differs from it in what is read and
    in where pixels are replaced. Quantus flips one pixel a pass (`step=1`), reads the probability
    (`output="prob"`), and its curve is then this one without the first point, for images of one
    channel: of others it flips single elements. Lower is better; as wide as the logits.

    Attributes:
        step: Pixels from pass to pass; a float is their share of the image, which makes
            ceil(1/step) + 1 passes at any size.
        output: What of the output is read.
        space: Where pixels are replaced.
        fill: What replaces them; zero of an image in [0, 1] is black.
        ties: How equal values are ordered: in `"scan"` order, in `"reverse"`, or in a `"random"`
            order an image.
        seed: Of that random order.
    """

    step: Step = 1 / 28
    output: Output = "logit"
    space: Space = "input"
    fill: Fill = "zero"
    ties: Ties = "scan"
    seed: int = 0

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="pixel_flipping",
        title="Pixel flipping",
        paper="Bach et al., 2015, doi:10.1371/journal.pone.0130140",
        formula="AUC of the logit of x without its k·step highest pixels",
        higher_is_better=False,
        bounds=(float("-inf"), float("inf")),
        cost="1/step + 1",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return the curves (B, P), from the clean image to the fill; see `Metric.score`."""
        return score_curves(
            model,
            images,
            explanation,
            self.step,
            self.output,
            self.space,
            self.fill,
            label=self.spec.name,
            ties=self.ties,
            seed=self.seed,
        )

    def finish(self, mean: Tensor) -> Tensor:
        """Return the area under the mean curve, which is the mean of the areas."""
        return compute_area(mean)

    def curve(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the score over the share of pixels that are flipped."""
        return torch.linspace(0, 1, mean.shape[-1], device=mean.device), mean
