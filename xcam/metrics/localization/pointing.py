"""Pointing metrics: the map's highest pixel, its mass and its highest ranks on the object.

Each takes boxes or masks; ignored pixels are left out, as if they were not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.core import Explanation, Metric, MetricSpec, Positive, Range
from xcam.engine.forward import note
from xcam.metrics.inputs import read_maps, read_target
from xcam.metrics.localization.truth import find_objects

__all__ = [
    "AttributionLocalization",
    "EnergyPointingGame",
    "Focus",
    "PointingGame",
    "RelevanceRank",
    "TopKIntersection",
]

Top: TypeAlias = Annotated[int, Range(least=1)] | Annotated[float, Range(above=0, most=1)]
"""How many of the highest pixels; a float is their share of all pixels."""


@dataclass(frozen=True)
class PointingGame(Metric):
    """Pointing game: how often the map's highest pixel lies on the object, or close to it.

    An image is a hit if ‖argmax map − o‖ < tolerance for some object pixel o; the result is the
    mean over classes of hits / images (Zhang et al., 2016, arXiv:1608.00507). The first of several
    highest pixels counts, row after row. Class by class as TorchRay, but over the classes that
    were explained: TorchRay counts those without an image as 0. In [0, 1], higher is better.

    Attributes:
        tolerance: Pixels of the images; 15 as published. 1 asks for an object pixel itself.
        per_class: Mean over the explained classes; False gives the mean over images.
    """

    tolerance: Positive = 15.0
    per_class: bool = True

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="pointing_game",
        title="Pointing game",
        paper="Zhang et al., 2016, arXiv:1608.00507",
        formula="mean over classes of P(argmax map within 15 pixels of the object)",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        question="localization",
        truth="masks",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B, 2, K), hits and images by class, or (B,) hits; see `Metric.score`."""
        maps = read_maps(explanation, images, order=True)
        objects, ignored = find_objects(truth, images)
        hits = self._hits(maps.masked_fill(ignored, -torch.inf), objects)
        if not self.per_class:
            return hits
        counts = _one_hot(explanation, images).to(hits)
        return torch.stack([hits[:, None] * counts, counts], 1)

    def _hits(self, maps: Tensor, objects: Tensor) -> Tensor:
        height, width = maps.shape[1:]
        highest = maps.flatten(1).argmax(1)[:, None, None]
        down = torch.arange(height, device=maps.device)[:, None] - highest // width
        right = torch.arange(width, device=maps.device) - highest % width
        near = down**2 + right**2 < self.tolerance**2
        return (near & objects).flatten(1).any(1).to(maps.dtype)

    def finish(self, mean: Tensor) -> Tensor:
        """Return the mean over classes, from (…, 2, K), or the mean itself."""
        if not self.per_class:
            return mean
        hits, counts = mean.unbind(-2)
        explained = counts > 0
        return (hits / counts.where(explained, 1)).sum(-1) / explained.sum(-1)


def _one_hot(explanation: Explanation, images: Tensor) -> Tensor:
    """Return the explained classes as (B, K) of 0 and 1."""
    logits, target = explanation.logits, read_target(explanation, images)
    if logits is None or target.classes is None:
        raise ValueError(
            "the mean over classes needs the explanation's logits for the number of classes, and "
            "it has none; use per_class=False"
        )
    target.bind(logits.to(images.device))
    return F.one_hot(target.classes, logits.shape[1])


@dataclass(frozen=True)
class EnergyPointingGame(Metric):
    """Energy-based pointing game: the share of the map's positive mass that lies on the object.

    Σ_object max(map, 0) / Σ max(map, 0) (Wang et al., 2020, arXiv:1910.01279, whose code keeps the
    negative values). A map without a positive value gives 0, and a note. In [0, 1], higher is
    better; a map that is the same everywhere gives the object's share of the pixels.
    """

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="energy_pointing_game",
        title="Energy-based pointing game",
        aliases=("energy_based_pointing_game", "epg"),
        paper="Wang et al., 2020, arXiv:1910.01279",
        formula="Σ_object max(map, 0) / Σ max(map, 0)",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        question="localization",
        truth="masks",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) shares; see `Metric.score`."""
        maps = read_maps(explanation, images)
        return _measure_mass(maps, *find_objects(truth, images))


def _measure_mass(maps: Tensor, objects: Tensor, ignored: Tensor) -> Tensor:
    """Return the share (B,) of the positive mass of maps (B, H, W) that lies on the object."""
    mass = maps.clamp(min=0).masked_fill(ignored, 0)
    inside, total = (mass * objects).sum((1, 2)), mass.sum((1, 2))
    for image, is_nowhere_positive in enumerate((total == 0).tolist()):
        if is_nowhere_positive:
            note(f"image {image}: no value of the map is positive, none of it is on the object")
    return inside / total.where(total > 0, 1)


@dataclass(frozen=True)
class Focus(EnergyPointingGame):
    """Focus: the share of a mosaic's positive mass that lies on tiles of the explained class.

    Σ_tiles max(map, 0) / Σ max(map, 0) for mosaics of 2×2 images, two of the explained class and
    two of others (Arias-Duart et al., 2022, arXiv:2109.15035), such as `xcam.data.mosaics` makes
    with the tiles as masks. The formula is `EnergyPointingGame`'s, for truth of any kind. A map
    that is the same everywhere gives 0.5. In [0, 1], higher is better.
    """

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="focus",
        title="Focus",
        paper="Arias-Duart et al., 2022, arXiv:2109.15035",
        formula="Σ_tiles max(map, 0) / Σ max(map, 0) over a mosaic",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        question="localization",
        truth="masks",
    )


@dataclass(frozen=True)
class AttributionLocalization(Metric):
    """Attribution localization: the object's share of the positive mass over its share of pixels.

    μ_w = (R_in / R_tot) · (S_tot / S_in), with R the sum of the map's positive values and S the
    number of pixels (Kohlbrenner et al., 2020, arXiv:1910.09840). A map that is the same everywhere
    gives 1; higher is better. `weighted=False` gives the ratio R_in / R_tot alone, which is
    `EnergyPointingGame` and Quantus' default, with `positive_attributions=True` there; Quantus'
    weighted form multiplies by the object's share where the paper divides. A map without a positive
    value gives 0, and a note.

    Attributes:
        weighted: Whether to divide by the object's share of the pixels.
    """

    weighted: bool = True

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="attribution_localization",
        title="Attribution localization",
        aliases=("attribution_localisation",),
        paper="Kohlbrenner et al., 2020, arXiv:1910.09840",
        formula="(Σ_object max(map, 0) / Σ max(map, 0)) · (pixels / object pixels)",
        higher_is_better=True,
        bounds=(0.0, float("inf")),
        question="localization",
        truth="masks",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) ratios; see `Metric.score`."""
        maps = read_maps(explanation, images)
        objects, ignored = find_objects(truth, images)
        share = _measure_mass(maps, objects, ignored)
        if not self.weighted:
            return share
        return share * (~ignored).sum((1, 2)) / objects.sum((1, 2))


@dataclass(frozen=True)
class RelevanceRank(Metric):
    """Relevance rank accuracy: the share of the map's highest pixels that lie on the object.

    |top_n(map) ∩ object| / n with n = |object| (Arras et al., 2022, arXiv:2003.07258). Of equal
    pixels the first count, row after row. In [0, 1], higher is better.
    """

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="relevance_rank",
        title="Relevance rank accuracy",
        aliases=("relevance_rank_accuracy",),
        paper="Arras et al., 2022, arXiv:2003.07258",
        formula="|top-n pixels on the object| / n, n = |object|",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        question="localization",
        truth="masks",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) shares; see `Metric.score`."""
        maps = read_maps(explanation, images, order=True)
        objects, ignored = find_objects(truth, images)
        found, sizes = _sort_objects(maps, objects, ignored).cumsum(1), objects.sum((1, 2))
        return found.gather(1, sizes[:, None] - 1)[:, 0] / sizes


def _sort_objects(maps: Tensor, objects: Tensor, ignored: Tensor) -> Tensor:
    """Return whether each pixel lies on the object, (B, H * W), from the map's highest on."""
    maps = maps.masked_fill(ignored, -torch.inf).flatten(1)
    order = maps.sort(dim=1, descending=True, stable=True).indices
    return objects.flatten(1).gather(1, order)


@dataclass(frozen=True)
class TopKIntersection(Metric):
    """Top-k intersection: the share of the map's k highest pixels that lie on the object.

    |top_k(map) ∩ object| / k (Theiner et al., 2022, arXiv:2104.14995). Of equal pixels the first
    count, row after row. In [0, 1], if weighted up to 1 / the object's share of the pixels; higher
    is better; an object of fewer than k pixels keeps it below 1, which `RelevanceRank` avoids.
    Quantus takes `top=1000`, about the default's share of 224×224 pixels; its `concept_influence`
    is `weighted=True`.

    Attributes:
        top: k; a float is its share of the pixels. Of fewer pixels all are taken.
        weighted: Whether to divide by the object's share of the pixels, so that chance is 1.
    """

    top: Top = 0.02
    weighted: bool = False

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="top_k_intersection",
        title="Top-k intersection",
        aliases=("topk_intersection",),
        paper="Theiner et al., 2022, arXiv:2104.14995",
        formula="|top-k pixels on the object| / k",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        question="localization",
        truth="masks",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) shares; see `Metric.score`."""
        maps = read_maps(explanation, images, order=True)
        objects, ignored = find_objects(truth, images)
        found, pixels = _sort_objects(maps, objects, ignored), (~ignored).sum((1, 2))
        count = self.top
        if isinstance(count, float):
            count = max(1, int(count * found.shape[1] + 1e-6))
        share = found[:, :count].sum(1) / pixels.clamp(max=count)
        return share * pixels / objects.sum((1, 2)) if self.weighted else share
