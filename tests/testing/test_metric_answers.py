"""Metrics that give no proper rows or results, or none for what they must take or refuse."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from good_metric import Good, assert_caught, broken, left, spec
from torch import nn

from xcam.core import Metric, MetricSpec
from xcam.engine import untouched


@dataclass(frozen=True)
class DividesByMass(Good):
    """NaN for a map of zeros."""

    def score(self, model, images, explanation, truth=None):
        mass = explanation.maps.abs().flatten(1).mean(1)
        return super().score(model, images, explanation, truth) * mass / mass


@dataclass(frozen=True)
class OutOfBounds(Good):
    """A percentage, with the bounds of a share."""

    def score(self, model, images, explanation, truth=None):
        return 100 * super().score(model, images, explanation, truth)


@dataclass(frozen=True)
class FinishesOneMean(Good):
    def score(self, model, images, explanation, truth=None):
        scores = super().score(model, images, explanation, truth)
        return torch.stack([scores, 1 - scores], 1)

    def finish(self, mean):
        return mean.max()


@dataclass(frozen=True)
class FinishesToACurve(Good):
    def score(self, model, images, explanation, truth=None):
        scores = super().score(model, images, explanation, truth)
        return torch.stack([scores, 1 - scores], 1)


@dataclass(frozen=True)
class FinishesOtherwiseInABatch(Good):
    def finish(self, mean):
        return mean if mean.ndim == 0 else mean / mean.amax().clamp(min=1) * 0.5


@dataclass(frozen=True)
class DrawsOneCurve(Good):
    def score(self, model, images, explanation, truth=None):
        scores = super().score(model, images, explanation, truth)
        return torch.stack([scores, 1 - scores], 1)

    def finish(self, mean):
        return mean[..., 0]

    def curve(self, mean):
        return torch.arange(2.0), mean.flatten()


@dataclass(frozen=True)
class MovesToHost(Good):
    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth).cpu()


@dataclass(frozen=True)
class MovesToHostAsArray(Good):
    def score(self, model, images, explanation, truth=None):
        return torch.from_numpy(super().score(model, images, explanation, truth).numpy())


@dataclass(frozen=True)
class ReturnsARowABatch(Good):
    def score(self, model, images, explanation, truth=None):
        scores = super().score(model, images, explanation, truth)
        return scores[:, None].expand(-1, len(images))

    def finish(self, mean):
        return mean.mean(-1)


@dataclass(frozen=True)
class KeepsAGraph(Good):
    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth).requires_grad_()


@dataclass(frozen=True)
class ReadsRawAsMaps(Good):
    def score(self, model, images, explanation, truth=None):
        height, width = explanation.raw[0].shape
        return super().score(model, images, explanation, truth) * height / width


@dataclass(frozen=True)
class ReadsLogits(Good):
    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth) * explanation.logits.shape[1] / 5


@dataclass(frozen=True)
class NeedsColor(Good):
    def score(self, model, images, explanation, truth=None):
        images = images[:, [0, 1, 2]]
        return super().score(model, images, explanation, truth)


@dataclass(frozen=True)
class NeedsSquares(Good):
    def score(self, model, images, explanation, truth=None):
        images = images + 0 * images.mT
        return super().score(model, images, explanation, truth)


@dataclass(frozen=True)
class NeedsContrast(Good):
    def score(self, model, images, explanation, truth=None):
        contrast = images.flatten(1).std(1)
        return super().score(model, images, explanation, truth) * contrast / contrast


@dataclass(frozen=True)
class TakesAnyMaps(Good):
    """Cuts, pads and repairs what does not fit."""

    def score(self, model, images, explanation, truth=None):
        with untouched(model), torch.no_grad():
            maps = explanation.maps.nan_to_num()
            maps = nn.functional.pad(maps, (0, 0, 0, images.shape[2] - maps.shape[1], 0, 0))
            return left(model, images[: len(maps)], maps, explanation[range(len(maps))])


@dataclass(frozen=True)
class CrashesOnMaps(Good):
    def score(self, model, images, explanation, truth=None):
        with untouched(model), torch.no_grad():
            return left(model, images, explanation.maps, explanation)


@dataclass(frozen=True)
class TakesAnyTruth(Good):
    spec: ClassVar[MetricSpec] = spec(truth="labels")


@dataclass(frozen=True)
class TakesMasksAlone(Good):
    spec: ClassVar[MetricSpec] = spec(truth="masks", question="localization")

    def score(self, model, images, explanation, truth=None):
        if truth is None or truth.is_floating_point() or truth.shape != images[:, 0].shape:
            raise ValueError("masks, please")
        if not bool((truth == 1).flatten(1).any(1).all()):
            raise ValueError("no object")
        return super().score(model, images, explanation, truth)


@dataclass(frozen=True)
class DrawsGlobally(Good):
    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth) * (0.5 + 0.5 * random.random())


@dataclass(frozen=True)
class ReturnsNan(Good):
    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth) * float("nan")


@dataclass(frozen=True)
class ReturnsOneNumber(Good):
    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth).mean()


@dataclass(frozen=True)
class ReturnsInts(Good):
    def score(self, model, images, explanation, truth=None):
        return (super().score(model, images, explanation, truth) > 0.2).long()


# What each breaks: these checks and no others.
CAUGHT: dict[type[Metric], set[str]] = {
    DividesByMass: {"stays_within_its_bounds"},
    OutOfBounds: {"stays_within_its_bounds"},
    FinishesOneMean: {"finishes_any_number_of_means", "stays_within_its_bounds"},
    FinishesToACurve: {"finishes_any_number_of_means"},
    FinishesOtherwiseInABatch: {"finishes_any_number_of_means"},
    DrawsOneCurve: {"draws_any_number_of_curves"},
    MovesToHost: {"stays_on_device"},
    MovesToHostAsArray: {"stays_on_device"},
    ReturnsARowABatch: {"gives_a_row_an_image", "same_for_a_subset", "same_beside_other_images"},
    KeepsAGraph: {"gives_a_row_an_image"},
    ReadsRawAsMaps: {"takes_a_value_an_element"},
    ReadsLogits: {"takes_maps_from_anywhere"},
    NeedsColor: {"takes_gray_images"},
    NeedsSquares: {"takes_wide_and_tall_images"},
    NeedsContrast: {"takes_flat_images"},
    TakesAnyMaps: {"refuses_maps_that_do_not_fit"},
    CrashesOnMaps: {"refuses_maps_that_do_not_fit"},
    TakesAnyTruth: {"refuses_truth_that_does_not_fit"},
    TakesMasksAlone: {"takes_boxes_and_masks"},
}


@pytest.mark.parametrize("kind", CAUGHT, ids=lambda kind: kind.__name__)
def test_bad_metric_is_caught_by_its_check(kind):
    assert_caught(kind, CAUGHT[kind])


@pytest.mark.parametrize(
    ("kind", "checks"),
    {
        DrawsGlobally: {"leaves_random_state", "same_under_any_global_seed", "keeps_nothing"},
        ReturnsNan: {"gives_a_row_an_image", "stays_within_its_bounds", "same_in_any_order"},
        ReturnsOneNumber: {"gives_a_row_an_image", "finishes_any_number_of_means"},
        ReturnsInts: {"gives_a_row_an_image", "finishes_any_number_of_means"},
    }.items(),
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_spoils_every_row_is_caught_wherever_rows_are_read(kind, checks):
    assert checks <= set(broken(kind()))
