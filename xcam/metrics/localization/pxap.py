"""Pixel-wise average precision of the map's values, over the pixels of all images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Explanation, Metric, MetricSpec
from xcam.metrics.localization.score_maps import (
    Resize,
    Scaling,
    Spacing,
    Step,
    list_thresholds,
    make_score_maps,
)
from xcam.metrics.localization.truth import find_objects
from xcam.metrics.precision import to_finest

__all__ = ["PxAP"]


@dataclass(frozen=True)
class PxAP(Metric):
    """Pixel-wise average precision of the pooled pixels of all images.

    100 · Σ_i P_i (R_i − R_{i+1}), with the precision P_i and the recall R_i of the pixels whose
    map, normalized by min-max, is at least τ_i, over the thresholds 0, step, 2 step … and 1; no
    interpolation, and thresholds that no pixel reaches are skipped (Choe et al., 2020,
    arXiv:2001.07437). Ignored pixels count for neither side. Pooled, so that a large object weighs
    more than a small one. A flat map is zeros. The authors resize maps bicubically:
    `resize="bicubic"`. In [0, 100], higher is better; a flat map, or one in random order, gives
    the object's share of the pixels. CALM's authors measure maps that are probabilities with
    `scaling="clip", thresholds="log"`, without the threshold 0: values below 1e-7 count for neither
    side there.

    Attributes:
        step: Between thresholds on maps in [0, 1]; 0.001 as published. As a share of seven
            decades with `thresholds="log"`.
        resize: How maps came to the images' size, see `score_maps.Resize`.
        scaling: How maps came into [0, 1]: `"minmax"`, `"max"`, which divides by the highest
            value, or `"clip"`.
        thresholds: `"even"`, or `"log"`: 0 and then from 1e-7 to 1 by equal factors.
    """

    step: Step = 0.001
    resize: Resize = "bilinear"
    scaling: Scaling = "minmax"
    thresholds: Spacing = "even"

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="pxap",
        title="PxAP",
        paper="Choe et al., 2020, arXiv:2001.07437",
        formula="100 Σ P(τ_i) (R(τ_i) − R(τ_{i+1})), pixels of all images pooled",
        higher_is_better=True,
        bounds=(0.0, 100.0),
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
        """Return (B, 2, bins), the object's and the background's pixels; see `Metric.score`."""
        maps = make_score_maps(explanation, images, self.resize, self.scaling)
        return self.count(maps, *find_objects(truth, images))

    def count(self, maps: Tensor, objects: Tensor, ignored: Tensor) -> Tensor:
        """Return how many pixels of the object, and of the background, are in each bin.

        Bin i holds the pixels in [τ_i, τ_{i+1}), the last one those at 1.

        Args:
            maps: (B, H, W) in [0, 1], as `make_score_maps` returns them.
            objects: (B, H, W) bool, the pixels of the object, of which there may be none.
            ignored: (B, H, W) bool, those that count for neither.

        Returns:
            (B, 2, bins).
        """
        edges = torch.tensor(
            [*list_thresholds(self.step, self.thresholds), 1.0],
            device=maps.device,
            dtype=maps.dtype,
        )
        bins = torch.bucketize(maps, edges, right=True) - 1
        side = torch.where(ignored, 2, (~objects).long())
        image = torch.arange(len(maps), device=maps.device)[:, None, None]
        place = (image * 3 + side) * len(edges) + bins
        counts = torch.bincount(place.flatten(), minlength=len(maps) * 3 * len(edges))
        return counts.view(len(maps), 3, len(edges))[:, :2].float()

    def finish(self, mean: Tensor) -> Tensor:
        """Return the area under the pooled precision and recall, from (…, 2, bins)."""
        reached = to_finest(mean).flip(-1).cumsum(-1)
        objects, all_pixels = reached.select(-2, 0), reached.sum(-2)
        precision = objects / all_pixels.where(all_pixels > 0, 1)
        recall = objects / objects[..., -1:]
        gained = recall.diff(dim=-1, prepend=torch.zeros_like(recall[..., :1]))
        return 100 * (precision * gained).sum(-1)
