"""Faithfulness as a correlation: do scores fall by what the map gives the pixels removed?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from xcam.core import Explanation, Metric, MetricSpec, Output, Range
from xcam.engine import untouched
from xcam.engine.masking import masked_passes
from xcam.imaging import Fill
from xcam.metrics.explaining import read_contrast
from xcam.metrics.inputs import read_maps, read_target
from xcam.metrics.precision import to_finest, to_result
from xcam.metrics.reading import check_changed, make_score_reader
from xcam.metrics.removal.pixels import (
    Fractions,
    Step,
    check_ascending,
    count_by_step,
    level,
    rank_values,
)
from xcam.metrics.removal.subsets import (
    correlate_samples,
    score_without_subsets,
    sum_over_subsets,
)
from xcam.models.normalized import Space, enter_space

__all__ = ["FaithfulnessCorrelation", "FaithfulnessEstimate", "SensitivityN"]

Samples: TypeAlias = Annotated[int, Range(least=2)]
"""How many subsets are drawn; a correlation takes two."""


@dataclass(frozen=True, eq=False, repr=False)
class FaithfulnessCorrelation(Metric):
    """Faithfulness correlation: do scores fall by what the map gives random subsets of pixels?

    corr_S(Σ_{i∈S} m_i, f(x) − f(x with S replaced)), Pearson's over random subsets S of one size
    (Bhatt et al., 2020, arXiv:2005.00631), m the signed map at the images' size: of a pixel method
    its channels as `reduce` joins them, since a pixel is removed with all of them. Any positive
    scale of the map gives the same. Quantus removes 224 elements, single channels of pixels, and
    fills in the image's lowest value. In [−1, 1], higher is better; a flat map, or scores that
    never change, count as 0.

    Attributes:
        size: Pixels of a subset; a float is their share of the image: 224 pixels at 224×224.
        n_samples: How many subsets.
        output: What of the output is f.
        fill: What replaces pixels.
        space: Where they are replaced.
        seed: Of the subsets, which are drawn for each image.
    """

    size: Step = 1 / 224
    n_samples: Samples = 100
    output: Output = "logit"
    fill: Fill = "zero"
    space: Space = "input"
    seed: int = 0

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="faithfulness_correlation",
        title="Faithfulness correlation",
        paper="Bhatt et al., 2020, arXiv:2005.00631",
        formula="corr over S of Σ_S map and f(x) − f(x without S)",
        higher_is_better=True,
        bounds=(-1.0, 1.0),
        cost="n_samples",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) correlations; see `Metric.score`."""
        sizes = _count_pixels((self.size,), images)
        return _correlate_subsets(self, model, images, explanation, sizes)[:, 0]


@dataclass(frozen=True, eq=False, repr=False)
class SensitivityN(Metric):
    """Sensitivity-n: do the map's values of n pixels add up to what the score loses without them?

    corr_S(Σ_{i∈S} m_i, f(x) − f(x with S replaced)) over random subsets S of n pixels, the mean
    over n (Ancona et al., 2018, arXiv:1711.06104); a map has sensitivity-n if the two are equal for
    all S, and then the correlation is 1 for this n. A linear model's input × gradient has it for
    every n. A map that is a positive multiple of such values has the same correlations, so that the
    map's own scale is not asked for. Quantus' metric of the name removes pixels progressively in
    the order of the map, which is another thing. m is as in `FaithfulnessCorrelation`. In [−1, 1],
    higher is better; a flat map, or scores that never change, count as 0.

    Attributes:
        fractions: n, as shares of the pixels; the paper goes to 0.8.
        n_samples: How many subsets of each size, as published.
        output: What of the output is f.
        fill: What replaces pixels.
        space: Where they are replaced.
        seed: Of the subsets, which are drawn for each image.
    """

    fractions: Fractions = (0.01, 0.03, 0.1, 0.3, 0.8)
    n_samples: Samples = 100
    output: Output = "logit"
    fill: Fill = "zero"
    space: Space = "input"
    seed: int = 0

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="sensitivity_n",
        title="Sensitivity-n",
        paper="Ancona et al., 2018, arXiv:1711.06104",
        formula="mean over n of corr over |S| = n of Σ_S map and f(x) − f(x without S)",
        higher_is_better=True,
        bounds=(-1.0, 1.0),
        cost="n_samples × len(fractions)",
    )

    def __post_init__(self) -> None:
        """Refuse fractions that do not ascend."""
        super().__post_init__()
        check_ascending(self.fractions)

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B, P) correlations, one for each n; see `Metric.score`."""
        sizes = _count_pixels(self.fractions, images)
        return _correlate_subsets(self, model, images, explanation, sizes)

    def finish(self, mean: Tensor) -> Tensor:
        """Return the mean over n."""
        return mean.mean(-1)

    def curve(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the correlation over n."""
        return mean.new_tensor(self.fractions), mean

    @property
    def curve_axes(self) -> tuple[str, str]:
        """Return what the axes of the curve are."""
        return "share of pixels removed", "correlation"


@dataclass(frozen=True, eq=False, repr=False)
class FaithfulnessEstimate(Metric):
    """Faithfulness estimate: does each part of the image matter as much as the map says?

    corr_i(m_i, f(x) − f(x without i)), Pearson's over the parts i, each removed by itself
    (Alvarez-Melis and Jaakkola, 2018, arXiv:1806.07538, whose parts are concepts). A part is
    `step` pixels that follow each other in the order of the map, equal ones row after row, and m_i
    their sum; `step=1` takes single pixels. Quantus takes elements, single channels of pixels
    (`features_in_step` of them), and fills in the image's lowest value: for images of one channel
    whose lowest value is 0 it gives the same. In [−1, 1], higher is better; a flat map, or scores
    that never change, count as 0.

    Attributes:
        step: Pixels of a part; a float is their share of the image.
        output: What of the output is f.
        fill: What replaces pixels.
        space: Where they are replaced.
    """

    step: Step = 1 / 28
    output: Output = "logit"
    fill: Fill = "zero"
    space: Space = "input"

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="faithfulness_estimate",
        title="Faithfulness estimate",
        paper="Alvarez-Melis and Jaakkola, 2018, arXiv:1806.07538",
        formula="corr over parts of Σ_part map and f(x) − f(x without the part)",
        higher_is_better=True,
        bounds=(-1.0, 1.0),
        cost="1/step",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) correlations; see `Metric.score`."""
        maps = read_maps(explanation, images, order=True)
        pixels, batch = maps[0].numel(), len(images)
        ranks = rank_values(maps)
        # A share of less than a pixel leaves some steps without any.
        ends = torch.tensor(sorted({*count_by_step(self.step, pixels).tolist()} - {0}))
        ends = ends.to(images.device)
        part_of_pixel, parts = torch.searchsorted(ends, ranks, right=True), len(ends)

        def masks(part: slice) -> tuple[Tensor, Tensor]:
            pairs = torch.arange(part.start, part.stop, device=images.device)
            rows = pairs // parts
            return rows, part_of_pixel[rows] != (pairs % parts)[:, None, None]

        target, contrast = read_target(explanation, images), read_contrast(explanation, images)
        read = make_score_reader(target, self.output, contrast)
        with untouched(model), torch.no_grad():
            net, shown = enter_space(model, images, self.space)
            label = self.spec.name
            found = masked_passes(net, shown, batch * parts, masks, read, self.fill, label)
        without = check_changed(found.view(batch, parts))
        values = to_finest(level(maps).flatten(1))
        sums = values.new_zeros(batch, parts).scatter_add_(1, part_of_pixel.flatten(1), values)
        return to_result(correlate_samples(sums, -without), images)


def _count_pixels(shares: tuple[int | float, ...], images: Tensor) -> tuple[int, ...]:
    """Return how many of the images' pixels each number or share is: at least 1, at most all."""
    pixels = images[0, 0].numel()
    counts = (share * pixels if isinstance(share, float) else share for share in shares)
    return tuple(min(pixels, max(1, int(count + 1e-6))) for count in counts)


def _correlate_subsets(
    metric: FaithfulnessCorrelation | SensitivityN,
    model: nn.Module,
    images: Tensor,
    explanation: Explanation,
    sizes: tuple[int, ...],
) -> Tensor:
    """Return the correlation (B, P) of sums and losses over random subsets of P sizes."""
    maps, target = level(read_maps(explanation, images)), read_target(explanation, images)
    draws = (sizes, metric.n_samples, metric.seed)
    without = score_without_subsets(
        model,
        images,
        target,
        *draws,
        metric.output,
        metric.fill,
        metric.space,
        read_contrast(explanation, images),
    )
    sums = sum_over_subsets(maps, images, *draws)
    return to_result(correlate_samples(sums, -without), images)
