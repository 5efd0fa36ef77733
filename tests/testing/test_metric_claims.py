"""Metrics that say of themselves what is not so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from good_metric import Good, assert_caught, spec

from xcam.core import Metric, MetricSpec
from xcam.metrics.inputs import read_maps


@dataclass(frozen=True)
class HidesItsPasses(Good):
    spec: ClassVar[MetricSpec] = spec(cost="0")


@dataclass(frozen=True)
class ClaimsPasses(Good):
    def score(self, model, images, explanation, truth=None):
        return read_maps(explanation, images).flatten(1).mean(1).sigmoid()


class Thawed(Good):
    """No dataclass of its own."""


@dataclass(frozen=True)
class Tightlipped(Good):
    strength: float = 1.0

    def __repr__(self):
        return "Tightlipped(...)"


@dataclass(frozen=True)
class HasNoFormula(Good):
    spec: ClassVar[MetricSpec] = spec(formula=" ")


@dataclass(frozen=True)
class HasNoRange(Good):
    spec: ClassVar[MetricSpec] = spec(bounds=(1.0, float("nan")))


@dataclass(frozen=True)
class AsksNothing(Good):
    spec: ClassVar[MetricSpec] = spec(question=" ")


@dataclass(frozen=True)
class LocalizesByLabels(Good):
    spec: ClassVar[MetricSpec] = spec(question="localization")


@dataclass(frozen=True)
class Shouts(Good):
    spec: ClassVar[MetricSpec] = spec(name="AUC-ROC")


@dataclass(frozen=True)
class Unexplained(Good):
    spec: ClassVar[MetricSpec] = spec(exceptions={"takes_gray_images": " "})

    def score(self, model, images, explanation, truth=None):
        images = images[:, [0, 1, 2]]
        return super().score(model, images, explanation, truth)


@dataclass(frozen=True)
class ExcusesTheInexcusable(Good):
    spec: ClassVar[MetricSpec] = spec(exceptions={"same_in_any_order": "it is fun"})

    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth) / torch.arange(1, len(images) + 1)


@dataclass(frozen=True)
class ExcusedWithoutNeed(Good):
    spec: ClassVar[MetricSpec] = spec(exceptions={"takes_gray_images": "it never tried"})


def local_class() -> type[Metric]:
    @dataclass(frozen=True)
    class Local(Good):
        pass

    return Local


# What each breaks: these checks and no others.
CAUGHT: dict[type[Metric], set[str]] = {
    HidesItsPasses: {"costs_what_it_says"},
    ClaimsPasses: {"costs_what_it_says"},
    Thawed: {"is_a_frozen_dataclass"},
    Tightlipped: {"shows_its_settings"},
    HasNoFormula: {"has_a_spec"},
    HasNoRange: {"has_a_spec", "stays_within_its_bounds"},
    AsksNothing: {"has_a_spec"},
    LocalizesByLabels: {"has_a_spec"},
    Shouts: {"has_a_spec"},
    Unexplained: {"excuses_little"},
    ExcusesTheInexcusable: {"excuses_little", "same_in_any_order", "same_for_a_subset"},
    ExcusedWithoutNeed: {"takes_gray_images"},
    local_class(): {"survives_pickling"},
}


@pytest.mark.parametrize("kind", CAUGHT, ids=lambda kind: kind.__name__)
def test_bad_metric_is_caught_by_its_check(kind):
    assert_caught(kind, CAUGHT[kind])
