"""What is checked: a method or a metric, with the net and the images that it is checked on."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import EllipsisType
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from xcam._explain.prepare import prepare
from xcam._explain.verb import check_images, check_model, explain
from xcam.core import (
    Explanation,
    Method,
    MethodSpec,
    Metric,
    MetricSpec,
    Target,
    TargetLike,
    TrainableMethod,
    Truth,
    attached_method,
    find_headed,
)
from xcam.engine.forward import Precision, run_settings
from xcam.errors import LayerError, XcamWarning
from xcam.methods import GradCAM, Saliency
from xcam.testing.probe import CLASSES, ContractError, Fuse, ProbeNet, sample_images

__all__ = [
    "TOLERANCE",
    "Case",
    "MethodSubject",
    "MetricSubject",
    "Subject",
    "attach_head",
    "explain_quietly",
    "get_classifier",
    "make_truth",
]

TOLERANCE = 1e-5
"""How far a map or score may be off, as a share of its range: batch sizes round differently."""

S = TypeVar("S", bound=Method | Metric)
T = TypeVar("T", bound="Subject[Any]")


@dataclass(frozen=True)
class Case:
    """What a method or metric is given beside the classifier.

    Attributes:
        images: (B, C, H, W).
        classes: The class of each image that is explained.
        explanation: Of the images, for a metric.
        truth: Of the images, for a metric that needs it.
    """

    images: Tensor
    classes: tuple[int, ...]
    explanation: Explanation | None = None
    truth: Tensor | None = None

    def select(self, chosen: Sequence[int]) -> Case:
        """Return the case of some of the images, in this order."""
        rows = list(chosen)
        return Case(
            self.images[rows],
            tuple(self.classes[row] for row in rows),
            None if self.explanation is None else self.explanation[rows],
            None if self.truth is None else self.truth[rows],
        )

    def with_maps(self, maps: Tensor) -> Case:
        """Return the case with other maps, at the images' size."""
        if self.explanation is None:
            return self
        size = (maps.shape[1], maps.shape[2])
        return replace(self, explanation=replace(self.explanation, raw=maps, size=size))

    def resize_maps(self) -> Case:
        """Return the case with `raw` maps at the images' size."""
        return self if self.explanation is None else self.with_maps(self.explanation.maps)

    def transform(self, change: Callable[[Tensor], Tensor]) -> Case:
        """Return the case with images, maps and truth changed by a function of each."""
        changed = replace(self, images=change(self.images))
        if self.explanation is None:
            return changed
        truth = None if self.truth is None else change(self.truth)
        raw = change(self.explanation.raw)
        return replace(changed, explanation=replace(self.explanation, raw=raw), truth=truth)


class Subject(ABC, Generic[S]):
    """A method or metric under test: the two suites differ in what this class leaves open.

    Every net that it builds is a fresh copy, so that no check harms the next.

    Args:
        settings: The method or metric.
        net: The author's classifier; None for xcam's small CNN.
        images: (B, C, H, W) that it takes, three or more; None for noise.

    Raises:
        TypeError: The net is no module, or the images are no tensor of its dtype.
        ValueError: There are too few images or classes, or the net fails on the images.
    """

    product: ClassVar[str]
    """What comes back, in the plural."""

    def __init__(
        self, settings: S, net: nn.Module | None = None, images: Tensor | None = None
    ) -> None:
        self.settings = settings
        self.spec: MethodSpec | MetricSpec = settings.spec
        self.name = self.spec.name
        if net is not None:
            check_model(net)
        if images is None:
            images = sample_images(size=getattr(net, "input_size", None) or (16, 16))
        self._given, self._images = net, images[: len(CLASSES)]
        if net is not None:
            check_images(net, images)
        self._classes = tuple(each % self._count_classes() for each in CLASSES[: len(images)])

    def _count_classes(self) -> int:
        if len(self._images) < 3:
            raise ValueError(f"images must be at least three, got {len(self._images)}")
        try:
            with torch.no_grad():
                num_classes: int = self.copy_net()(self._images).shape[1]
        except Exception as error:
            raise ValueError(
                f"the net fails on images of shape {tuple(self._images.shape)}; give images that "
                f"it takes ({error})"
            ) from error
        if num_classes < 2:
            raise ValueError("the net must have two or more logits, got one")
        return num_classes

    def __repr__(self) -> str:
        """Return that of the method or metric."""
        return repr(self.settings)

    def replace(self: T, **changes: object) -> T:
        """Return the subject with other settings."""
        other = copy.copy(self)
        other.settings = dataclasses.replace(self.settings, **changes)
        other.__dict__.pop("placed", None)
        return other

    def copy_net(self, channels: int | None = None) -> nn.Module:
        """Return the bare classifier, in eval mode; one for other channels where it is ours."""
        if self._given is None:
            return ProbeNet(channels or self._images.shape[1])
        return copy.deepcopy(self._given).eval()

    def build_net(self, net: nn.Module | None = None, fuse: Fuse | None = None) -> nn.Module:
        """Return what the subject runs on: the classifier, or one with the head that it needs.

        Args:
            net: The bare classifier; None for a copy of the usual one.
            fuse: To count the passes that are made from then on, and fail one.
        """
        return self.copy_net() if net is None else net

    def build_case(self, images: Tensor | None = None) -> Case:
        """Return the images, or others, with all that the subject is given of them."""
        images = self._images.clone() if images is None else images
        return Case(images, self._classes[: len(images)])

    def accepts(self, images: Tensor) -> bool:
        """Return whether the bare classifier takes such images."""
        try:
            with torch.no_grad():
                self.copy_net(images.shape[1])(images)
        except Exception:
            return False
        return True

    @cached_property
    def placed(self) -> S:
        """Return the settings with what they leave open filled in for the net, such as a layer."""
        return self.settings

    @abstractmethod
    def run(
        self, case: Case | None = None, net: nn.Module | None = None, batch_size: int | None = None
    ) -> Tensor:
        """Return the maps or scores of a case as users get them."""

    @abstractmethod
    def call(
        self, case: Case | None = None, net: nn.Module | None = None, settings: S | None = None
    ) -> Tensor:
        """Return what the author's own function gives, called as it is promised to be."""

    @abstractmethod
    def measure(self, values: Tensor, reference: Tensor) -> float:
        """Return how far maps or scores are off, as a share of their range."""

    def require_same(self, values: Tensor, reference: Tensor, circumstance: str) -> None:
        """Check that maps or scores are equal but for rounding.

        Raises:
            ContractError: They are not.
        """
        off = math.inf
        if values.shape == reference.shape:
            off = self.measure(values.detach(), reference.detach())
        if not off <= TOLERANCE:
            raise ContractError(
                f"{self.name} gives other {self.product} {circumstance}: off by {off:.1e} of "
                f"their range, at most {TOLERANCE:.0e} is allowed"
            )

    def require_finite(self, values: Tensor, case: Case, what: str) -> None:
        """Check that there is a finite map or row for each image.

        Raises:
            ContractError: There is not.
        """
        if len(values) != len(case.images) or not bool(values.isfinite().all()):
            raise ContractError(
                f"{self.name} gives {self.product} that are not finite, or too few, for {what}"
            )


class MethodSubject(Subject[Method]):
    """A method under test; a trainable one runs on nets whose seeded head counts as fitted."""

    product = "maps"

    def place(self) -> MethodSubject:
        """Return the subject with its layer named, for nets on which another would be found."""
        other = copy.copy(self)
        other.settings = self.placed
        return other

    def build_net(self, net: nn.Module | None = None, fuse: Fuse | None = None) -> nn.Module:
        """Return the classifier, with its head for a trainable method."""
        net = attach_head(self.settings, super().build_net(net))
        if fuse is not None:
            fuse.install(get_classifier(net))
        return net

    @cached_property
    def placed(self) -> Method:
        """Return the method with its layer."""
        return prepare(self.build_net(), self._images[:1], self.settings).method

    def explain(
        self,
        case: Case | None = None,
        net: nn.Module | None = None,
        target: TargetLike | EllipsisType = ...,
        batch_size: int | None = None,
    ) -> Explanation:
        """Explain a case, for its classes or another target."""
        case = case or self.build_case()
        net = self.build_net(self.copy_net(case.images.shape[1]) if net is None else net)
        chosen = list(case.classes) if isinstance(target, EllipsisType) else target
        return explain_quietly(self.settings, net, case.images, chosen, batch_size)

    def run(
        self, case: Case | None = None, net: nn.Module | None = None, batch_size: int | None = None
    ) -> Tensor:
        """Return the raw maps of `explain`."""
        return self.explain(case, net, batch_size=batch_size).raw

    def call(
        self,
        case: Case | None = None,
        net: nn.Module | None = None,
        settings: Method | None = None,
    ) -> Tensor:
        """Return what `maps` gives on a frozen net."""
        case = case or self.build_case()
        net = self.build_net(self.copy_net(case.images.shape[1]) if net is None else net)
        target = Target.of(list(case.classes), case.images)
        return (settings or self.placed).maps(net.requires_grad_(False), case.images, target)

    def measure(self, values: Tensor, reference: Tensor) -> float:
        """Return the largest difference of any image's map, as a share of the reference's range.

        Where a reference map is flat its largest magnitude stands for the range, or 1 if it is 0.
        """
        flat = reference.flatten(1)
        span, magnitude = flat.amax(1) - flat.amin(1), flat.abs().amax(1)
        scale = torch.where(span > 0, span, torch.where(magnitude > 0, magnitude, 1))
        return float(((values - reference).flatten(1).abs().amax(1) / scale).max())


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
        net = self.copy_net(case.images.shape[1]) if net is None else net
        with run_settings(batch_size, precision):
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


def attach_head(method: Method, net: nn.Module) -> nn.Module:
    """Return the net, or for a trainable method a copy with its head, seeded, as if trained.

    A net that carries a head stays as it is.
    """
    if not isinstance(method, TrainableMethod) or attached_method(net) is not None:
        return net
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        attached = method.attach(net)
    if attached_method(attached) is None:
        raise ContractError(
            f"{method.spec.name}: attach must return a Headed, alone or inside the model's "
            f"Normalized, got {type(attached).__name__}"
        )
    find_headed(attached).fitted = True
    return attached


def get_classifier(net: nn.Module) -> nn.Module:
    """Return the classifier in a net that carries a head, or the net."""
    return net if attached_method(net) is None else find_headed(net).classifier


def explain_quietly(
    method: Method,
    net: nn.Module,
    images: Tensor,
    target: TargetLike = None,
    batch_size: int | None = None,
) -> Explanation:
    """Explain images without showing notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XcamWarning)
        return explain(attach_head(method, net), images, target, method, batch_size)


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
