"""Coherency and complexity of maps: two terms of ADCC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam._explain.prepared import prepare, run
from xcam.core import Explanation, Metric, MetricSpec
from xcam.engine import unwrap
from xcam.engine.masking import blend
from xcam.engine.shared import shareable
from xcam.imaging import Fill, normalize
from xcam.metrics.inputs import read_maps, read_target, require_method
from xcam.metrics.masked.muting import MaskNormalization, make_masks
from xcam.metrics.precision import to_finest
from xcam.models.normalized import Normalized, Space, enter_space

__all__ = [
    "Coherency",
    "Complexity",
    "MaskedByMap",
    "correlate",
    "measure_coherency",
    "measure_complexity",
]

_PAPER = "Poppi et al., 2021, arXiv:2104.10252"


@dataclass(frozen=True, eq=False, repr=False)
class MaskedByMap(Metric):
    """Settings of a metric that explains images again, each seen through its map."""

    normalize: MaskNormalization = "before_resize"
    fill: Fill = "zero"
    space: Space = "input"


@dataclass(frozen=True, eq=False, repr=False)
class Coherency(MaskedByMap):
    """Coherency: how similar the map of the masked image is to the map that masks it.

    (ρ(e(x), e(x ⊙ m)) + 1) / 2, with e the method that made the maps, for the same class, m the
    map in [0, 1] and ρ Pearson's correlation over pixels; 0 if either map is flat (Poppi et al.,
    2021, arXiv:2104.10252). In [0, 1], higher is better; a map that does not depend on the image is
    wholly coherent. The authors' code masks in `space="normalized"` and always explains the
    predicted class.

    Attributes:
        normalize: Min-max of each map `"before_resize"` or `"after_resize"` to the image's size,
            or None for maps that lie in [0, 1].
        fill: What is seen where the map is 0.
        space: Where the images are masked: as pixels, or after a `Normalized` model's own
            normalization.
    """

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="coherency",
        title="Coherency",
        paper=_PAPER,
        formula="(Pearson(e(x), e(x ⊙ m)) + 1) / 2",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        cost="1 explanation",
        known_failures=dict.fromkeys(
            ("oracle above random", "random above inverse"),
            "any map that masking does not change is coherent, wherever it points",
        ),
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) similarities; see `Metric.score`."""
        masks = make_masks(explanation, images, self.normalize)
        return measure_coherency(model, images, explanation, masks, self.fill, self.space)


@dataclass(frozen=True)
class Complexity(Metric):
    """Complexity: how much of the image the map covers.

    1/(H·W) Σ |m| (Poppi et al., 2021, arXiv:2104.10252). In [0, 1], lower is better.

    Attributes:
        normalize: Min-max of each map `"before_resize"` or `"after_resize"` to the image's size,
            or None for maps that lie in [0, 1].
    """

    normalize: MaskNormalization = "before_resize"

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="complexity",
        title="Complexity",
        paper=_PAPER,
        formula="mean of m",
        higher_is_better=False,
        bounds=(0.0, 1.0),
        question="shape",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) means; see `Metric.score`."""
        return measure_complexity(make_masks(explanation, images, self.normalize))


@shareable
def measure_coherency(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation,
    masks: Tensor,
    fill: Fill,
    space: Space,
) -> Tensor:
    """Return how similar (B,), in [0, 1], the maps are to those of the masked images.

    Raises:
        ValueError: The method that made the maps is not at hand.
    """
    method = require_method(explanation, "coherency")
    target = read_target(explanation, images)
    hidden = mask_images(model, images, masks, fill, space)
    again = run(prepare(model, hidden, method), hidden, target)
    return (correlate(read_maps(explanation, images), again.maps) + 1) / 2


def mask_images(
    model: nn.Module, images: Tensor, masks: Tensor, fill: Fill, space: Space
) -> Tensor:
    """Return masked images (B, C, H, W) as the model takes them, whichever space masks them."""
    net, shown = enter_space(model, images, space)
    hidden = blend(shown, masks, fill)
    outer = unwrap(model)
    if net is not model and isinstance(outer, Normalized):
        return hidden * outer.std + outer.mean
    return hidden


def measure_complexity(masks: Tensor) -> Tensor:
    """Return the mean (B,) of masks (B, H, W) in [0, 1]."""
    return masks.flatten(1).mean(1)


def correlate(first: Tensor, second: Tensor) -> Tensor:
    """Return Pearson's ρ (B,) over the pixels of maps (B, H, W); −1 if either is flat."""
    a, b = (to_finest(normalize(maps)).flatten(1) for maps in (first, second))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    scale = a.norm(dim=1) * b.norm(dim=1)
    found = (a * b).sum(1) / scale.where(scale > 0, 1)
    return torch.where(scale > 0, found, -1).clamp(-1, 1).float()
