"""Accuracy of the model, on the images and on images masked by their maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import (
    Count,
    Explanation,
    Metric,
    MetricSpec,
    check_finite,
    describe_unreadable,
    extract_logits,
    mark_unreadable,
)
from xcam.engine import untouched
from xcam.engine.clean import clean_logits
from xcam.imaging import Fill
from xcam.metrics.inputs import read_maps
from xcam.metrics.masked.confidence import masked_logits
from xcam.metrics.masked.muting import MaskNormalization, Muted, make_masks
from xcam.metrics.reading import Read, check_changed, is_among_top
from xcam.models.normalized import Space
from xcam.sentences import pluralize

__all__ = ["Accuracy", "MaskedAccuracy"]


@dataclass(frozen=True)
class Accuracy(Metric):
    """Top-k accuracy of the model on the images; does not depend on the map.

    1/N Σ 1[fewer than k classes score above the label], in [0, 1], higher is better. It speaks of
    the model: it stands beside `MaskedAccuracy`, as in L-CAM's tables (Gkartzonika et al., 2022).

    Attributes:
        top: k, of top-k.
    """

    top: Count = 1

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="accuracy",
        title="Accuracy",
        paper="Gkartzonika et al., 2022, ECCV Workshops",
        formula="share of images whose label is among the k highest scores",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        truth="labels",
        cost="1",
        reads_maps=False,
        known_failures=dict.fromkeys(
            ("oracle above random", "random above inverse"),
            "does not depend on the map, so it cannot rank methods",
        ),
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) hits, 0 or 1, from (B,) labels; see `Metric.score`."""
        read_maps(explanation, images)  # which refuses an explanation of other images
        read = make_top_reader(check_labels(truth, images), self.top)
        with untouched(model):
            logits = clean_logits(model, images, "accuracy")
        hits = read(logits, torch.arange(len(images), device=images.device))
        return check_finite(hits, describe_unreadable)


@dataclass(frozen=True, eq=False, repr=False)
class MaskedAccuracy(Metric):
    """Top-k accuracy of the model on images masked by their maps.

    1/N Σ 1[fewer than k classes score above the label for x ⊙ m], in [0, 1], higher is better
    (Gkartzonika et al., 2022, "Learning visual explanations for DCNN-based image classifiers using
    an attention mechanism", ECCV Workshops: L-CAM, whose code masks pixels). Where the model is
    right behind noise as well, only a part of the pixels, such as `muted=0.5`, tells maps apart.

    Attributes:
        top: k, of top-k.
        muted: What fraction of the pixels is hidden wholly, in [0, 1), the lowest of the map.
        normalize: Min-max of each map `"before_resize"` or `"after_resize"` to the image's size,
            or None for maps that lie in [0, 1].
        binary: Whether all that is left above 0 is seen fully.
        fill: What is seen where the map is 0.
        space: Where the images are masked: as pixels, or after a `Normalized` model's own
            normalization.
    """

    top: Count = 1
    muted: Muted = 0.0
    normalize: MaskNormalization = "before_resize"
    binary: bool = False
    fill: Fill = "zero"
    space: Space = "input"

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="masked_accuracy",
        title="Masked Accuracy",
        paper="Gkartzonika et al., 2022, ECCV Workshops",
        formula="share of masked images whose label is among the k highest scores",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        truth="labels",
        cost="1",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) hits, 0 or 1, from (B,) labels; see `Metric.score`."""
        read = make_top_reader(check_labels(truth, images), self.top)
        masks = make_masks(explanation, images, self.normalize, self.muted, self.binary)
        with untouched(model):
            logits = masked_logits(model, images, masks, self.fill, self.space)
        return check_changed(read(logits, torch.arange(len(images), device=images.device)))


def check_labels(truth: Tensor | None, images: Tensor) -> Tensor:
    """Return the true classes (B,) as int64, or raise if they do not fit the images.

    Raises:
        TypeError: No tensor, or not one of integers.
        ValueError: Not one label an image, or a negative one.
    """
    count = len(images)
    if not isinstance(truth, Tensor) or truth.is_floating_point() or truth.dtype == torch.bool:
        got = truth.dtype if isinstance(truth, Tensor) else type(truth).__name__
        raise TypeError(f"truth must be a tensor of {count} integer labels, got {got}")
    if truth.shape != (count,):
        raise ValueError(f"truth must be ({count},) labels, one an image, got {tuple(truth.shape)}")
    if bool((truth < 0).any()):
        raise ValueError(f"label {int(truth.min())} is negative: classes count from 0")
    return truth.to(images.device).long()


def make_top_reader(labels: Tensor, top: int) -> Read:
    """Make a reader of whether an image's label is among the `top` highest logits: (R,) 0 or 1.

    By the rule of `is_among_top`. A single logit means class 1 if it is positive, else class 0.
    Where logits are unreadable it is NaN.
    """
    highest = int(labels.max())

    def read(output: object, rows: Tensor) -> Tensor:
        logits = extract_logits(output, len(rows))
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], 1)  # as a softmax would have it
        count = logits.shape[1]
        if highest >= count:
            raise ValueError(
                f"label {highest} is out of range: the model has {pluralize(count, 'class')}"
            )
        if top >= count:
            raise ValueError(f"top must be below the model's number of classes, {count}, got {top}")
        hits = is_among_top(logits, labels[rows], top).to(logits.dtype)
        return mark_unreadable(hits, logits)

    return read
