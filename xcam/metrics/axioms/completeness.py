"""Completeness: do attributions add up to the difference from a baseline?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Explanation, Metric, MetricSpec, NonNegative, Output, Target
from xcam.engine import untouched
from xcam.engine.clean import clean_logits
from xcam.engine.masking import masked_passes
from xcam.engine.shared import shareable
from xcam.imaging import Fill
from xcam.metrics.explaining import read_contrast
from xcam.metrics.inputs import read_maps, read_target
from xcam.metrics.precision import to_finest, to_result
from xcam.metrics.reading import check_changed, make_score_reader
from xcam.models.normalized import Space, enter_space

__all__ = ["Completeness"]


@dataclass(frozen=True, eq=False, repr=False)
class Completeness(Metric):
    """Completeness: how often attributions add up to what the score is above the baseline's.

    1 for an image if |Σ a − (f(x) − f(x'))| ≤ tolerance · |f(x) − f(x')|, else 0 (Sundararajan et
    al., 2017, arXiv:1703.01365, who accept sums within 5 %). a is all of `Explanation.raw`, signed,
    as the method returned it: a value an element of the image, or a CAM at its layer's size. It
    takes attributions in units of f: maps that are cut at zero, normalized or positive by
    construction do not add up to a difference, whatever else they are worth. Baseline and output
    must be the method's own; the defaults are those of `integrated_gradients`. Quantus asks for
    equality, `tolerance=0`, after dividing the map by its maximum. In [0, 1], higher is better.

    For a map with a contrast, f is the score of the class less that of the contrast.

    Attributes:
        tolerance: How far the sum may be off, as a share of the difference.
        output: What of the output is f.
        fill: x'.
        space: Where it stands in for the image.
    """

    tolerance: NonNegative = 0.05
    output: Output = "logit"
    fill: Fill = "zero"
    space: Space = "input"

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="completeness",
        title="Completeness",
        paper="Sundararajan et al., 2017, arXiv:1703.01365",
        formula="share of images with Σ raw = f(x) − f(baseline), within 5 %",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        question="axioms",
        cost="2",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,), 1 where the sum is right; see `Metric.score`."""
        read_maps(explanation, images)  # refuses maps of other images
        total = to_finest(explanation.raw.to(images.device).flatten(1)).sum(1)
        target, contrast = read_target(explanation, images), read_contrast(explanation, images)
        rise = _measure_rise(model, images, target, self.output, self.fill, self.space, contrast)
        return to_result((total - rise).abs() <= self.tolerance * rise.abs(), images)

    @property
    def reads_channels(self) -> bool:
        """Return that it adds up the channels of `raw`, whatever the method's `reduce`."""
        return True


@shareable
def _measure_rise(
    model: nn.Module,
    images: Tensor,
    target: Target,
    output: Output,
    fill: Fill,
    space: Space,
    contrast: Target | None,
) -> Tensor:
    """Return how far the score of each image is above that of its baseline, (B,)."""
    rows = torch.arange(len(images), device=images.device)
    hidden = images.new_zeros(1, *images.shape[2:])
    read = make_score_reader(target, output, contrast)
    with untouched(model), torch.no_grad():
        clean = read(clean_logits(model, images, "completeness"), rows)
        net, shown = enter_space(model, images, space)
        baseline = masked_passes(
            net, shown, len(images), lambda part: (rows[part], hidden), read, fill, "completeness"
        )
    pair = check_changed(torch.stack([clean, baseline], 1))
    return to_finest(pair).diff(dim=1)[:, 0].neg()
