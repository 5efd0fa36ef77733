"""Monotonicity: does the score rise whenever the pixels that the map has next come in?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Explanation, Metric, MetricSpec, Output
from xcam.engine import untouched
from xcam.imaging import Fill
from xcam.metrics.explaining import read_contrast
from xcam.metrics.inputs import read_target
from xcam.metrics.precision import to_result
from xcam.metrics.reading import make_score_reader
from xcam.metrics.removal.pixels import (
    Step,
    Ties,
    count_by_step,
    draw_order,
    rank_values,
    read_ordered_maps,
    remove_progressively,
)
from xcam.models.normalized import Space, enter_space

__all__ = ["Monotonicity"]

# Chunks of different sizes change a score by less, as a share of the curve's highest.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class Monotonicity(Metric):
    """Monotonicity: how often the score never falls while pixels come in, the lowest first.

    1 for an image if s_0 ≤ s_1 ≤ … ≤ s_n, s_k = f(the fill with the k·step lowest pixels of the
    image), else 0 (Arya et al., 2019, arXiv:1909.03012, who add one feature at a time; their AIX360
    compares from s_1 on, and leaves out s_0 ≤ s_1). The curves of deep nets hardly ever rise at
    each of many steps: with `every_step=False` the result is the share of the steps at which they
    do not fall. Quantus' metric of the name fills in the value that stands there already, and gives
    1 for every map. In [0, 1], higher is better.

    Attributes:
        step: Pixels from pass to pass; a float is their share of the image, which makes
            ceil(1/step) + 1 passes at any size.
        every_step: Whether all steps must rise, or count one by one.
        output: What of the output is f.
        fill: What is seen at the start.
        space: Where pixels are replaced.
        ties: How equal values are ordered: in `"scan"` order, in `"reverse"`, or in a `"random"`
            order an image.
        seed: Of that random order.
    """

    step: Step = 1 / 28
    every_step: bool = True
    output: Output = "prob"
    fill: Fill = "zero"
    space: Space = "input"
    ties: Ties = "scan"
    seed: int = 0

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="monotonicity",
        title="Monotonicity",
        paper="Arya et al., 2019, arXiv:1909.03012",
        formula="share of images with f rising at every step, lowest pixels first",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        cost="1/step + 1",
        known_failures=dict.fromkeys(
            ("oracle above random", "random above inverse"),
            "hardly any curve of a net rises at each of many steps, and single steps favor noise",
        ),
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,), 1 where the curve is monotonic, or shares of steps; see `Metric.score`."""
        lowest_first = -read_ordered_maps(explanation, images, self.ties)
        pixels = lowest_first[0].numel()
        ranks = rank_values(lowest_first, draw_order(images, pixels, self.ties, self.seed))
        counts = count_by_step(self.step, pixels)
        target, contrast = read_target(explanation, images), read_contrast(explanation, images)
        read, name = make_score_reader(target, self.output, contrast), "monotonicity"
        with untouched(model), torch.no_grad():
            net, shown = enter_space(model, images, self.space)
            curves = remove_progressively(net, shown, ranks, counts, read, self.fill, True, name)
        rising = curves.diff() >= -_ROUNDING * curves.abs().amax(1, keepdim=True)
        shares = to_result(rising, images).mean(1)
        return to_result(shares == 1, images) if self.every_step else shares
