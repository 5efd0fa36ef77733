"""What the checks score: explained pictures, with truth of the kind that a metric needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from xcam.core import Explanation, Method, Metric, Truth
from xcam.engine.forward import Precision, run_settings
from xcam.methods import GradCAM
from xcam.testing.probe import CLASSES, ContractError, ProbeNet, explained, pictures

__all__ = ["TOLERANCE", "Case", "made", "require_same", "scored", "truth_of"]

TOLERANCE = 1e-5
"""How far a score may be off, as a share of its range: batch sizes round differently."""


@dataclass(frozen=True)
class Case:
    """What a metric is given beside the classifier.

    Attributes:
        images: (B, C, H, W).
        explanation: Of the images.
        truth: Of the images, if the metric needs any.
    """

    images: Tensor
    explanation: Explanation
    truth: Tensor | None = None

    def of(self, chosen: Sequence[int]) -> Case:
        """The same of some of the images, in this order."""
        rows = list(chosen)
        truth = None if self.truth is None else self.truth[rows]
        return Case(self.images[rows], self.explanation[rows], truth)

    def with_maps(self, maps: Tensor) -> Case:
        """The same with other maps, at the images' size."""
        size = (maps.shape[1], maps.shape[2])
        return replace(self, explanation=replace(self.explanation, raw=maps, size=size))


def made(
    metric: Metric,
    images: Tensor | None = None,
    method: Method | None = None,
) -> Case:
    """Pictures, explained by Grad-CAM unless told otherwise, and truth if the metric needs it.

    Every other image is explained for the class that the probe predicts, the rest for others.
    """
    images = pictures() if images is None else images
    net = ProbeNet(channels=images.shape[1])
    with torch.no_grad():
        classes = net(images).argmax(1)
    classes[1::2] = torch.tensor(CLASSES[1 : len(images) : 2])
    explanation = explained(method or GradCAM(), net, images, classes)
    kind = metric.spec.truth
    truth = None if kind == "none" else truth_of(kind, len(images), images.shape[2:])
    return Case(images, explanation, truth)


def truth_of(kind: Truth, count: int, size: Sequence[int] = (16, 16)) -> Tensor:
    """Labels, boxes or masks of up to five images of at least 16×16 pixels.

    Every second image has a second box; the masks are of the same boxes, with a row to ignore.
    """
    if kind == "labels":
        return torch.tensor(CLASSES[:count])
    boxes = torch.full((count, 2, 4), math.nan)
    for image in range(count):
        boxes[image, 0] = torch.tensor([9 - image, 2 + image, 14 - image, 8 + image])
        if image % 2:
            boxes[image, 1] = torch.tensor([0, 12, 4, 15])
    if kind == "boxes":
        return boxes
    masks = torch.zeros(count, *size, dtype=torch.uint8)
    for mask, some in zip(masks, boxes, strict=True):
        for box in some[some[:, 0].isfinite()].int().tolist():
            mask[box[1] : box[3], box[0] : box[2]] = 1
    masks[:, 0] = 255
    return masks


def scored(
    metric: Metric,
    case: Case,
    net: nn.Module | None = None,
    batch_size: int | None = None,
    precision: Precision = "full",
) -> Tensor:
    """Scores, on a fresh probe unless told otherwise; notes are not shown."""
    net = ProbeNet(channels=case.images.shape[1]) if net is None else net
    with run_settings(batch_size, precision):
        return metric.score(net, case.images, case.explanation, case.truth)


def require_same(metric: Metric, rows: Tensor, reference: Tensor, circumstance: str) -> None:
    """Checks that two scores are equal but for rounding.

    Their range is that of the result, where it has one, or their largest magnitude, or 1.

    Raises:
        ContractError: They are not.
    """
    rows, reference = rows.detach(), reference.detach()
    low, high = metric.spec.bounds
    scale = max(1.0, float(reference.abs().max()), high - low if math.isfinite(high - low) else 0)
    off = math.inf
    if rows.shape == reference.shape:
        off = float((rows - reference).abs().max()) / scale
    if not off <= TOLERANCE:
        raise ContractError(
            f"{metric.spec.name} gives other scores {circumstance}: off by {off:.1e} of their "
            f"range, at most {TOLERANCE:.0e} is allowed"
        )
