"""What is checked: a method or a metric, with the net and the images that it is checked on."""

from __future__ import annotations

import copy
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from xcam._explain.checks import check_dtype, check_images, check_model
from xcam.core import Explanation, Method, MethodSpec, Metric, MetricSpec
from xcam.testing.probe import CLASSES, ContractError, Fuse, build_probe, sample_images
from xcam.testing.reuse import ReusedNet

__all__ = ["TOLERANCE", "Case", "Subject"]

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

    Every net that it builds is a fresh copy, and one that `lend_net` gave is given again only as
    long as it is as it was, so that no check harms the next.

    Args:
        settings: The method or metric.
        net: The author's classifier; None for xcam's small CNN, or the one that the spec names.
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
        if net is not None:
            check_images(net, images)
            check_dtype(net, images)
        self._given, self._images = net, images[: len(CLASSES)].detach()
        num_classes = self._count_classes()
        self._classes = tuple(each % num_classes for each in CLASSES[: len(images)])

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
        for name in ("placed", "reference", "_lent"):
            other.__dict__.pop(name, None)
        return other

    def copy_net(self, channels: int | None = None) -> nn.Module:
        """Return the bare classifier, in eval mode; one for other channels where it is ours."""
        if self._given is None:
            return build_probe(self.spec, channels or self._images.shape[1])
        return copy.deepcopy(self._given).eval()

    def build_net(self, net: nn.Module | None = None, fuse: Fuse | None = None) -> nn.Module:
        """Return what the subject runs on: the classifier, or one with the head that it needs.

        Args:
            net: The bare classifier; None for a copy of the usual one.
            fuse: To count the passes that are made from then on, and fail one.
        """
        return self.copy_net() if net is None else net

    @cached_property
    def _lent(self) -> dict[tuple[int, bool], ReusedNet]:
        return {}

    def lend_net(self, images: Tensor, frozen: bool = False) -> nn.Module:
        """Return a net for such images that only calls of the method or metric see.

        It is the one of the call before, unless that has left a trace: layers are looked for once.
        """
        channels = images.shape[1]

        def build() -> nn.Module:
            net = self.build_net(self.copy_net(channels))
            return net.requires_grad_(False) if frozen else net

        return self._lent.setdefault((channels, frozen), ReusedNet()).get(build)

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

    @cached_property
    def reference(self) -> Tensor:
        """Return what `run` gives of the usual case; a check requires that it gives it again."""
        return self.run()

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
