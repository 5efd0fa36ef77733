"""Pointing metrics: the map's highest pixel, its mass and its highest ranks on the object.

Each takes boxes or masks; ignored pixels are left out, as if they were not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.core import Explanation, Metric, MetricSpec, Positive
from xcam.engine.forward import note
from xcam.metrics.inputs import read_maps, read_target
from xcam.metrics.localization.truth import find_objects

__all__ = ["EnergyPointingGame", "PointingGame", "RelevanceRank"]


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
        objects, ignored = find_objects(truth, images)
        mass = maps.clamp(min=0).masked_fill(ignored, 0)
        inside, total = (mass * objects).sum((1, 2)), mass.sum((1, 2))
        for image, is_nowhere_positive in enumerate((total == 0).tolist()):
            if is_nowhere_positive:
                note(f"image {image}: no value of the map is positive, none of it is on the object")
        return inside / total.where(total > 0, 1)

    def finish(self, mean: Tensor) -> Tensor:
        """Return the mean itself."""
        return mean


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
        maps, objects = maps.masked_fill(ignored, -torch.inf).flatten(1), objects.flatten(1)
        order = maps.sort(dim=1, descending=True, stable=True).indices
        found = objects.gather(1, order).cumsum(1)
        sizes = objects.sum(1)
        return found.gather(1, sizes[:, None] - 1)[:, 0] / sizes

    def finish(self, mean: Tensor) -> Tensor:
        """Return the mean itself."""
        return mean
