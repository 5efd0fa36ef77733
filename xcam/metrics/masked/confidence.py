"""Change of the model's confidence when images are masked by their maps."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Explanation, Metric, MetricSpec, extract_logits
from xcam.engine import untouched
from xcam.engine.clean import clean_logits
from xcam.engine.masking import masked_passes
from xcam.engine.shared import shareable
from xcam.imaging import Fill
from xcam.metrics.inputs import read_target
from xcam.metrics.masked.muting import MaskNormalization, Muted, make_masks
from xcam.metrics.precision import to_finest
from xcam.metrics.reading import check_changed, make_score_reader
from xcam.models.normalized import Space, enter_space

_NO_GAIN = {
    "random above inverse": "neither shows enough of the object for the probability to rise"
}

__all__ = [
    "AverageDrop",
    "AverageGain",
    "IncreaseInConfidence",
    "compute_relative_drop",
    "masked_logits",
    "measure_confidences",
]

# Batches of different sizes change a probability by less.
_ROUNDING = 1e-6


def measure_confidences(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation,
    masks: Tensor,
    fill: Fill = "zero",
    space: Space = "input",
) -> tuple[Tensor, Tensor]:
    """Return the probability of the explained class for each image, clean and masked.

    Both passes of an image are made in the same place of a chunk of the same size, as chunks of
    other sizes may be computed otherwise. An image that its mask leaves as it is keeps its
    probability exactly.

    Args:
        model: The classifier; left as it was.
        images: (B, C, H, W).
        explanation: Of these images.
        masks: (B, H, W) in [0, 1].
        fill: What is seen where the mask is zero.
        space: Where the image is masked.

    Returns:
        p and o, each (B,) float64, as float32 would leave nothing of 1 − p where p is near 1; a
        device without float64 gives float32 all the same.

    Raises:
        ModelOutputError: A probability is not finite.
    """
    probability = make_score_reader(read_target(explanation, images), "prob")
    rows = torch.arange(len(images), device=images.device)
    with untouched(model):
        # First: chunks that memory is too small for are halved, and those that follow.
        masked = masked_logits(model, images, masks, fill, space)
        clean = clean_logits(model, images, "confidence")
    pair = [probability(to_finest(logits), rows) for logits in (clean, masked)]
    p, o = check_changed(torch.stack(pair, 1)).unbind(1)
    return p, torch.where((masks == 1).flatten(1).all(1), p, o)


@shareable
def masked_logits(
    model: nn.Module, images: Tensor, masks: Tensor, fill: Fill, space: Space
) -> Tensor:
    """Return the logits (B, K) of masked images; see `measure_confidences`.

    The caller holds the model `untouched`.
    """
    net, shown = enter_space(model, images, space)

    def one_each(part: slice) -> tuple[Tensor, Tensor]:
        return torch.arange(part.start, part.stop, device=images.device), masks[part]

    def read(output: object, rows: Tensor) -> Tensor:
        return extract_logits(output, len(rows))

    return masked_passes(net, shown, len(images), one_each, read, fill, "masked images")


def compute_relative_drop(p: Tensor, o: Tensor) -> Tensor:
    """Return max(0, p − o) / p, the share of p that is lost; 0 where p is 0."""
    return (p - o).clamp(min=0) / p.where(p > 0, 1)


@dataclass(frozen=True, eq=False, repr=False)
class _Confidence(Metric):
    """A percentage of each image, from its probability clean and masked."""

    muted: Muted = 0.0
    normalize: MaskNormalization = "before_resize"
    binary: bool = False
    fill: Fill = "zero"
    space: Space = "input"

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) percentages; see `Metric.score`."""
        masks = make_masks(explanation, images, self.normalize, self.muted, self.binary)
        return 100 * self._share(
            *measure_confidences(model, images, explanation, masks, self.fill, self.space)
        )

    @abstractmethod
    def _share(self, p: Tensor, o: Tensor) -> Tensor:
        """Return the statistic (B,) from the probabilities (B,) of clean and masked images."""


@dataclass(frozen=True, eq=False, repr=False)
class AverageDrop(_Confidence):
    """Average Drop: how much of the class's probability is lost on the masked image.

    AD = 100/N Σ max(0, p − o) / p, with p the probability of the explained class for the image x
    and o for x ⊙ m, m the map in [0, 1] (Chattopadhay et al., 2018, arXiv:1710.11063). An image
    with p = 0 has nothing to lose: 0. In percent, lower is better; a map that is 1 nearly
    everywhere gets near 0 for nothing, which AG does not reward.

    L-CAM (Gkartzonika et al., 2022) explains the predicted class, with `muted` of 0, 0.5 and 0.85
    for AD(100 %), AD(50 %) and AD(15 %). CA-Stream (Torres et al., 2024) explains the label. Both
    mask pixels, `space="input"`.

    Attributes:
        muted: What fraction of the pixels is hidden wholly, in [0, 1), the lowest of the map; the
            others are seen as much as the map says.
        normalize: Min-max of each map `"before_resize"` or `"after_resize"` to the image's size,
            or None for maps that lie in [0, 1].
        binary: Whether all that is left above 0 is seen fully.
        fill: What is seen where the map is 0.
        space: Where a `Normalized` model's images are masked: as pixels (zero is black), or after
            normalization (zero is the mean color).
    """

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="average_drop",
        title="Average Drop",
        aliases=("ad",),
        paper="Chattopadhay et al., 2018, arXiv:1710.11063",
        formula="100 · mean of max(0, p − o) / p",
        higher_is_better=False,
        bounds=(0.0, 100.0),
        cost="2",
    )

    def _share(self, p: Tensor, o: Tensor) -> Tensor:
        return compute_relative_drop(p, o)


@dataclass(frozen=True, eq=False, repr=False)
class AverageGain(_Confidence):
    """Average Gain: how much of 1 − p is gained on the masked image.

    AG = 100/N Σ max(0, o − p) / (1 − p), with p and o as in `AverageDrop` (Zhang et al., 2023,
    arXiv:2301.07002). An image with p = 1 has nothing to win: 0. In percent, higher is better.
    Maps behind which p never rises all get 0, bad and worse alike.

    Attributes:
        muted: As in `AverageDrop`, like all that follow.
        normalize: `"before_resize"`, `"after_resize"` or None.
        binary: Whether all that is left above 0 is seen fully.
        fill: What is seen where the map is 0.
        space: Where the images are masked. Published: `"input"`.
    """

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="average_gain",
        title="Average Gain",
        aliases=("ag",),
        paper="Zhang et al., 2023, arXiv:2301.07002",
        formula="100 · mean of max(0, o − p) / (1 − p)",
        higher_is_better=True,
        bounds=(0.0, 100.0),
        cost="2",
        known_failures=_NO_GAIN,
    )

    def _share(self, p: Tensor, o: Tensor) -> Tensor:
        return compute_relative_drop(1 - p, 1 - o)


@dataclass(frozen=True, eq=False, repr=False)
class IncreaseInConfidence(_Confidence):
    """Increase in Confidence: how often the class is more probable on the masked image.

    IC = 100/N Σ 1[o > p], with p and o as in `AverageDrop` (Chattopadhay et al., 2018,
    arXiv:1710.11063). In percent, higher is better. By default o must exceed p by 1e-6, so that
    what rounding does to two passes is no increase; the authors' code (L-CAM, CA-Stream) is
    `strict=True`. Maps behind which p never rises all get 0, bad and worse alike.

    Attributes:
        muted: As in `AverageDrop`, like all that follow.
        normalize: `"before_resize"`, `"after_resize"` or None.
        binary: Whether all that is left above 0 is seen fully.
        fill: What is seen where the map is 0.
        space: Where the images are masked.
        strict: Whether any o above p counts.
    """

    strict: bool = False

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="increase_in_confidence",
        title="Increase in Confidence",
        aliases=("ic",),
        paper="Chattopadhay et al., 2018, arXiv:1710.11063",
        formula="100 · share of images with o > p",
        higher_is_better=True,
        bounds=(0.0, 100.0),
        cost="2",
        known_failures=_NO_GAIN,
    )

    def _share(self, p: Tensor, o: Tensor) -> Tensor:
        return (o - p > (0 if self.strict else _ROUNDING)).to(p.dtype)
