"""A metric under test, with explained images and their truth."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from xcam.core import Method, Metric, Truth
from xcam.engine.forward import Precision, run_settings
from xcam.errors import LayerError
from xcam.methods import GradCAM, Saliency
from xcam.testing.method_subject import explain_quietly
from xcam.testing.probe import Fuse
from xcam.testing.subject import Case, Subject

__all__ = ["MetricSubject", "make_truth"]


class MetricSubject(Subject[Metric]):
    """A metric under test, with maps to score and truth of the kind that it needs."""

    product = "scores"

    def build_net(self, net: nn.Module | None = None, fuse: Fuse | None = None) -> nn.Module:
        """Return the classifier."""
        net = super().build_net(net)
        if fuse is not None:
            fuse.install(net)
        return net

    def build_case(self, images: Tensor | None = None, method: Method | None = None) -> Case:
        """Return images, explained by Grad-CAM where it runs, and truth if the metric needs it.

        Every other image is explained for the class that the net predicts, the rest for others.
        """
        if images is None and method is None:
            return copy.deepcopy(self._usual_case)
        return self._explain_case(super().build_case(images), method)

    @cached_property
    def _usual_case(self) -> Case:
        return self._explain_case(super().build_case())

    def _explain_case(self, case: Case, method: Method | None = None) -> Case:
        images, net = case.images, self.copy_net(case.images.shape[1])
        with torch.no_grad():
            classes = net(images).argmax(1)
        classes[1::2] = torch.tensor(case.classes[1::2], device=classes.device)
        try:
            explanation = explain_quietly(method or GradCAM(), net, images, classes)
        except LayerError:
            explanation = explain_quietly(Saliency(), net, images, classes)
        truth = make_truth(self.settings.spec.truth, images, case.classes)
        return Case(images, tuple(classes.tolist()), explanation, truth)

    def run(
        self,
        case: Case | None = None,
        net: nn.Module | None = None,
        batch_size: int | None = None,
        precision: Precision = "full",
        settings: Metric | None = None,
    ) -> Tensor:
        """Return the rows of `score`; notes are not shown."""
        case = case or self.build_case()
        if case.explanation is None:
            raise ValueError("a metric scores explained images; build the case by build_case")
        net = self.lend_net(case.images) if net is None else net
        with run_settings(batch_size=batch_size, precision=precision):
            metric = settings or self.settings
            return metric.score(net, case.images, case.explanation, case.truth)

    def call(
        self,
        case: Case | None = None,
        net: nn.Module | None = None,
        settings: Metric | None = None,
    ) -> Tensor:
        """Return the rows of `score`."""
        return self.run(case, net, settings=settings)

    def measure(self, values: Tensor, reference: Tensor) -> float:
        """Return the largest difference, as a share of the result's range or largest magnitude."""
        low, high = self.settings.spec.bounds
        width = high - low if math.isfinite(high - low) else 0
        scale = max(1.0, float(reference.abs().max()), width)
        return float((values - reference).abs().max()) / scale


def make_truth(kind: Truth, images: Tensor, classes: Sequence[int]) -> Tensor | None:
    """Make labels, boxes or masks of up to five images.

    Every second image has a second box; the masks are of the same boxes, with a row to ignore.
    """
    count, height, width = len(images), *images.shape[2:]
    if kind == "none":
        return None
    if kind == "labels":
        return torch.tensor(classes, device=images.device)
    boxes = torch.full((count, 2, 4), math.nan)
    for image in range(count):
        boxes[image, 0] = torch.tensor([9 - image, 2 + image, 14 - image, 8 + image])
        if image % 2:
            boxes[image, 1] = torch.tensor([0, 12, 4, 15])
    boxes *= max(1, min(height, width) // 16)
    if kind == "boxes":
        return boxes.to(images.device)
    masks = torch.zeros(count, height, width, dtype=torch.uint8)
    for mask, some in zip(masks, boxes, strict=True):
        for box in some[some[:, 0].isfinite()].int().tolist():
            mask[box[1] : box[3], box[0] : box[2]] = 1
    masks[:, 0] = 255
    return masks.to(images.device)
