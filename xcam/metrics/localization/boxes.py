"""Accuracy of the boxes around a thresholded map, at the best threshold for all images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xcam.core import Explanation, Metric, MetricSpec, Range
from xcam.metrics.localization.score_maps import Resize, Step, list_thresholds, make_score_maps
from xcam.metrics.localization.truth import find_boxes

__all__ = ["MaxBoxAcc", "MaxBoxAccV2"]

IoU: TypeAlias = Annotated[float, Range(above=0, most=1)]

_ON_THE_HOST = {"stays_on_device": "OpenCV traces contours on the CPU"}


@dataclass(frozen=True)
class MaxBoxAcc(Metric):
    """MaxBoxAcc: how often the largest contour at the best threshold gives the object's box.

    100 · max_τ mean_images [IoU(box of the largest contour of map > τ, any true box) ≥ delta], with
    τ chosen once for all images (Choe et al., 2020, arXiv:2001.07437), on min-max normalized maps
    in 256 levels. As in the authors' code, boxes are whole pixels, contours and their areas are
    OpenCV's, the far corner of a predicted box is exclusive but kept in the image, and both boxes'
    sides are counted with one pixel more in the IoU; a map above τ nowhere predicts (0, 0, 0, 0).
    They resize maps bicubically: `resize="bicubic"`. A mask counts as the box around it. In
    [0, 100], higher is better. The contours are traced on the CPU.

    Attributes:
        step: Between thresholds on maps in [0, 1]; 0.001 as published.
        delta: The IoU from which a box is right; 0.5 as published.
        resize: How maps came to the images' size, see `score_maps.Resize`.
        scaling: How maps came into [0, 1]: `"minmax"`, or `"max"`, which divides by the highest
            value and cuts what is negative.
    """

    step: Step = 0.001
    delta: IoU = 0.5
    resize: Resize = "bilinear"
    scaling: Literal["minmax", "max"] = "minmax"

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="max_box_acc",
        title="MaxBoxAcc",
        paper="Choe et al., 2020, arXiv:2001.07437",
        formula="100 max_τ P(IoU of the largest contour's box ≥ 0.5)",
        higher_is_better=True,
        bounds=(0.0, 100.0),
        question="localization",
        truth="boxes",
        exceptions=_ON_THE_HOST,
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B, 1, L) hits at each level that thresholds fall on; see `Metric.score`."""
        maps = make_score_maps(explanation, images, self.resize, self.scaling)
        boxes = find_boxes(truth, images)
        return _hits(maps, boxes, self.step, [self.delta], largest=True).to(images.device)

    def finish(self, mean: Tensor) -> Tensor:
        """Return the percentage at the best threshold, from (…, 1, L)."""
        return _best(mean)

    def curve(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the percentage at each threshold."""
        return _curve(mean, self.step)


@dataclass(frozen=True)
class MaxBoxAccV2(Metric):
    """MaxBoxAccV2: MaxBoxAcc with any contour, averaged over the required overlap.

    mean over delta of 100 · max_τ mean_images [max IoU(box of any contour of map > τ, any true box)
    ≥ delta], with τ chosen for each delta once for all images (Choe et al., 2020,
    arXiv:2007.04178). All else as in `MaxBoxAcc`; the edges of holes are contours, too, so that a
    map with a hole where the object is finds it.

    Attributes:
        step: Between thresholds on maps in [0, 1]; 0.001 as published.
        deltas: The IoUs from which a box is right; 0.3, 0.5 and 0.7 as published.
        resize: How maps came to the images' size, see `score_maps.Resize`.
        scaling: How maps came into [0, 1]: `"minmax"`, or `"max"`, which divides by the highest
            value and cuts what is negative.
    """

    step: Step = 0.001
    deltas: tuple[IoU, ...] = (0.3, 0.5, 0.7)
    resize: Resize = "bilinear"
    scaling: Literal["minmax", "max"] = "minmax"

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="max_box_acc_v2",
        title="MaxBoxAccV2",
        paper="Choe et al., 2020, arXiv:2007.04178",
        formula="mean over delta of 100 max_τ P(IoU of any contour's box ≥ delta)",
        higher_is_better=True,
        bounds=(0.0, 100.0),
        question="localization",
        truth="boxes",
        known_failures={"random above inverse": "the inverse has a hole where the object is"},
        exceptions=_ON_THE_HOST,
    )

    def __post_init__(self) -> None:
        """Refuse an empty tuple of deltas."""
        super().__post_init__()
        if not self.deltas:
            raise ValueError("deltas must be at least one IoU, such as (0.5,), got none")

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B, deltas, L) hits at each level that thresholds fall on; see `Metric.score`."""
        maps = make_score_maps(explanation, images, self.resize, self.scaling)
        boxes = find_boxes(truth, images)
        return _hits(maps, boxes, self.step, self.deltas, largest=False).to(images.device)

    def finish(self, mean: Tensor) -> Tensor:
        """Return the mean over deltas of the best threshold's percentage, from (…, deltas, L)."""
        return _best(mean)

    def curve(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the percentage at each threshold, averaged over deltas."""
        return _curve(mean, self.step)


def _best(mean: Tensor) -> Tensor:
    return 100 * mean.amax(-1).mean(-1)


def _curve(mean: Tensor, step: float) -> tuple[Tensor, Tensor]:
    abscissae, _ = _levels(step)
    return mean.new_tensor(abscissae.tolist()), 100 * mean.mean(-2)


def _levels(step: float) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the first threshold on each of the 256 levels that has any, and those levels.

    A normalized map reaches level 255 (or is zeros, and above no level), so that thresholds of
    one level agree on every image: to keep their hits apart would make rows longer, not richer.
    """
    every = np.array(list_thresholds(step))
    levels, first = np.unique((every * 255).astype(np.intp), return_index=True)
    return every[first], levels


def _hits(
    maps: Tensor, boxes: Tensor, step: float, deltas: Sequence[float], largest: bool
) -> Tensor:
    """Return whether maps (B, H, W) in [0, 1] hit a true box, as (B, deltas, L) of 0 and 1.

    OpenCV traces contours on the CPU: this is where maps leave their device.
    """
    quantized = (maps * 255).to(torch.uint8).cpu().numpy()
    truth = boxes.trunc().cpu().numpy()
    _, levels = _levels(step)
    overlaps = [
        _overlaps(image, true[~np.isnan(true[:, 0])], levels, largest)
        for image, true in zip(quantized, truth, strict=True)
    ]
    reached = np.stack(overlaps)[:, None] >= np.array(deltas)[:, None]
    return torch.from_numpy(reached).float()


def _overlaps(
    image: NDArray[np.uint8], truth: NDArray[Any], levels: NDArray[np.intp], largest: bool
) -> NDArray[np.float64]:
    """Return the best IoU of the contours above each level with the true boxes (N, 4)."""
    at_least = np.bincount(image.ravel(), minlength=257)[::-1].cumsum()[::-1]
    # Levels that as many pixels exceed are exceeded by the same pixels.
    _, first, which = np.unique(at_least[levels + 1], return_index=True, return_inverse=True)
    predicted = [_predicted(image > level, largest) for level in levels[first]]
    best = _iou(np.concatenate(predicted), truth).max(1)
    starts = np.cumsum([0, *map(len, predicted[:-1])])
    return np.asarray(np.maximum.reduceat(best, starts)[which])


def _predicted(above: NDArray[np.bool_], largest: bool) -> NDArray[np.int64]:
    """Return the boxes (n, 4) of all contours of a binary map (H, W), or of the largest one."""
    import cv2

    contours, _ = cv2.findContours(above.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return np.zeros((1, 4), np.int64)
    if largest:
        contours = [max(contours, key=cv2.contourArea)]
    x, y, width, height = np.array([cv2.boundingRect(line) for line in contours], np.int64).T
    right = np.minimum(x + width, above.shape[1] - 1)
    bottom = np.minimum(y + height, above.shape[0] - 1)
    return np.stack([x, y, right, bottom], 1)


def _iou(boxes: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    """Return the IoU (n, m) of boxes (n, 4) and (m, 4), each side one pixel longer."""

    def areas(low: NDArray[Any], high: NDArray[Any]) -> NDArray[np.float64]:
        sides = np.maximum(high - low + 1, 0).astype(np.float64)
        return np.asarray(sides.prod(-1))

    one, other = boxes[:, None], others[None]
    shared = areas(
        np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    )
    union = areas(one[..., :2], one[..., 2:]) + areas(other[..., :2], other[..., 2:]) - shared
    return np.asarray(shared / union)
