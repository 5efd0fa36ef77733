"""The contract suite catches metrics that are wrong on purpose, each by the check for it."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xcam import forward
from xcam.core import Explanation, Metric, MetricSpec
from xcam.errors import UnknownNameError
from xcam.metrics.inputs import maps_of, target_of
from xcam.state import untouched
from xcam.testing import CheckResult, ContractError, check_metric, metric_checks


def left(model: nn.Module, images: Tensor, maps: Tensor, explanation: Explanation) -> Tensor:
    """The honest work of the metrics here, (B,): the class's probability behind the map."""
    target = target_of(explanation, images)
    low, high = maps.flatten(1).aminmax(dim=1)
    masks = (maps - low[:, None, None]) / (high - low).clamp(min=1e-6)[:, None, None]

    def step(part: slice) -> Tensor:
        rows = torch.arange(part.start, part.stop)
        output = forward.call(model, images[rows] * masks[rows, None])
        return target.scores(output, rows, score="prob")

    return forward.collect(len(images), step, images)


def spec(**changes: Any) -> MetricSpec:
    honest = MetricSpec(
        name="bad",
        title="Bad",
        paper="None, 2026",
        formula="p(x ⊙ M)",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        cost="1",
    )
    return dataclasses.replace(honest, **changes)


@dataclass(frozen=True)
class Good(Metric):
    """Wrong in nothing; those below say how they differ."""

    spec: ClassVar[MetricSpec] = spec()

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        maps = maps_of(explanation, images)
        with untouched(model), torch.no_grad():
            return left(model, images, maps, explanation)

    def finish(self, mean: Tensor) -> Tensor:
        return mean


def last(model: nn.Module) -> nn.Module:
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


def print_nothing(*_: object) -> None:
    """A hook that changes nothing."""


@dataclass(frozen=True)
class LeaksHook(Good):
    def score(self, model, images, explanation, truth=None):
        last(model).register_forward_hook(print_nothing)
        return super().score(model, images, explanation, truth)


@dataclass(frozen=True)
class LeaksHookOnFailure(Good):
    def score(self, model, images, explanation, truth=None):
        handle = last(model).register_forward_hook(print_nothing)
        scores = super().score(model, images, explanation, truth)
        handle.remove()
        return scores


@dataclass(frozen=True)
class LeavesAttribute(Good):
    def score(self, model, images, explanation, truth=None):
        last(model).last_images = len(images)
        return super().score(model, images, explanation, truth)


@dataclass(frozen=True)
class LeavesTrainMode(Good):
    def score(self, model, images, explanation, truth=None):
        scores = super().score(model, images, explanation, truth)
        model.train()
        return scores


@dataclass(frozen=True)
class LeavesGrad(Good):
    def score(self, model, images, explanation, truth=None):
        weight = next(model.parameters())
        weight.grad = torch.ones_like(weight)
        return super().score(model, images, explanation, truth)


@dataclass(frozen=True)
class Unfreezes(Good):
    def score(self, model, images, explanation, truth=None):
        scores = super().score(model, images, explanation, truth)
        bias = list(model.parameters())[-1]
        bias.requires_grad_(not bias.requires_grad)
        return scores


@dataclass(frozen=True)
class ChangesParameter(Good):
    """Leaves the values as they were, but writes to them."""

    def score(self, model, images, explanation, truth=None):
        with torch.no_grad():
            next(model.parameters()).mul_(1)
        return super().score(model, images, explanation, truth)


@dataclass(frozen=True)
class ChangesBuffer(Good):
    def score(self, model, images, explanation, truth=None):
        scores = super().score(model, images, explanation, truth)
        next(model.buffers()).add_(1)
        return scores


@dataclass(frozen=True)
class MutatesImages(Good):
    def score(self, model, images, explanation, truth=None):
        with torch.no_grad():
            images.mul_(1)
        return super().score(model, images, explanation, truth)


@dataclass(frozen=True)
class MutatesMaps(Good):
    def score(self, model, images, explanation, truth=None):
        explanation.maps.clamp_(min=-1e9)
        return super().score(model, images, explanation, truth)


@dataclass(frozen=True)
class SeedsGlobally(Good):
    def score(self, model, images, explanation, truth=None):
        scores = super().score(model, images, explanation, truth)
        torch.manual_seed(0)
        return scores


@dataclass(frozen=True)
class DrawsGlobally(Good):
    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth) * (0.5 + 0.5 * random.random())


@dataclass(frozen=True)
class ReadsTheGlobalSeed(Good):
    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth) / (1 + torch.initial_seed() % 2)


@dataclass(frozen=True)
class LeavesGradModeOff(Good):
    def score(self, model, images, explanation, truth=None):
        torch.set_grad_enabled(False)
        return super().score(model, images, explanation, truth)


@dataclass(frozen=True)
class SwallowsErrors(Good):
    def score(self, model, images, explanation, truth=None):
        try:
            return super().score(model, images, explanation, truth)
        except Exception as error:
            if isinstance(error, (TypeError, ValueError)):
                raise
            return torch.zeros(len(images))


@dataclass(frozen=True)
class ComparesWithTheBatch(Good):
    def score(self, model, images, explanation, truth=None):
        scores = super().score(model, images, explanation, truth)
        return scores / scores.max()


@dataclass(frozen=True)
class DependsOnChunks(Good):
    def score(self, model, images, explanation, truth=None):
        size = forward.current().batch_size or 8
        return super().score(model, images, explanation, truth) * (1 - 1 / (1 + size))


@dataclass(frozen=True)
class DependsOnPosition(Good):
    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth) / torch.arange(1, len(images) + 1)


@dataclass(frozen=True)
class ReturnsNan(Good):
    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth) * float("nan")


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
class ReturnsOneNumber(Good):
    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth).mean()


@dataclass(frozen=True)
class ReturnsInts(Good):
    def score(self, model, images, explanation, truth=None):
        return (super().score(model, images, explanation, truth) > 0.2).long()


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
class NeedsColour(Good):
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
class HidesItsPasses(Good):
    spec: ClassVar[MetricSpec] = spec(cost="0")


@dataclass(frozen=True)
class ClaimsPasses(Good):
    def score(self, model, images, explanation, truth=None):
        return maps_of(explanation, images).flatten(1).mean(1).sigmoid()


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
    spec: ClassVar[MetricSpec] = spec(truth="masks", question="localisation")

    def score(self, model, images, explanation, truth=None):
        if truth is None or truth.is_floating_point() or truth.shape != images[:, 0].shape:
            raise ValueError("masks, please")
        if not bool((truth == 1).flatten(1).any(1).all()):
            raise ValueError("no object")
        return super().score(model, images, explanation, truth)


@dataclass(frozen=True)
class ReadsMemoryOrder(Good):
    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth) / (1 + images.stride()[-1])


@dataclass(frozen=True)
class ReadsTheMode(Good):
    def score(self, model, images, explanation, truth=None):
        factor = 0.5 if last(model).training else 1.0
        return super().score(model, images, explanation, truth) * factor


@dataclass(frozen=True)
class ReadsGradMode(Good):
    def score(self, model, images, explanation, truth=None):
        factor = 1.0 if torch.is_grad_enabled() else 0.5
        return super().score(model, images, explanation, truth) * factor


@dataclass(frozen=True)
class ReadsInferenceMode(Good):
    def score(self, model, images, explanation, truth=None):
        factor = 0.5 if torch.is_inference_mode_enabled() else 1.0
        return super().score(model, images, explanation, truth) * factor


@dataclass(frozen=True)
class Remembers(Good):
    def score(self, model, images, explanation, truth=None):
        object.__setattr__(self, "last", images.shape)
        return super().score(model, images, explanation, truth)


@dataclass(frozen=True)
class IgnoresItsSeed(Good):
    seed: int = 0


@dataclass(frozen=True)
class ReturnsLowPrecision(Good):
    def score(self, model, images, explanation, truth=None):
        low = forward.current().precision == "bf16"
        return (
            super()
            .score(model, images, explanation, truth)
            .to(torch.bfloat16 if low else torch.float32)
        )


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
class AsksNothingKnown(Good):
    spec: ClassVar[MetricSpec] = spec(question="beauty")


@dataclass(frozen=True)
class LocalisesByLabels(Good):
    spec: ClassVar[MetricSpec] = spec(question="localisation")


@dataclass(frozen=True)
class Shouts(Good):
    spec: ClassVar[MetricSpec] = spec(name="AUC-ROC")


@dataclass(frozen=True)
class Unexplained(Good):
    spec: ClassVar[MetricSpec] = spec(exceptions={"takes_grey_images": " "})

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
    spec: ClassVar[MetricSpec] = spec(exceptions={"takes_grey_images": "it never tried"})


def local_class() -> type[Metric]:
    @dataclass(frozen=True)
    class Local(Good):
        pass

    return Local


# What each breaks: these checks and no others.
CAUGHT: dict[type[Metric], set[str]] = {
    LeaksHook: {"leaves_hooks"},
    LeaksHookOnFailure: {"leaves_hooks"},
    LeavesAttribute: {"leaves_modules"},
    LeavesTrainMode: {"leaves_modes"},
    LeavesGrad: {"leaves_gradients"},
    Unfreezes: {"leaves_requires_grad"},
    ChangesParameter: {"leaves_parameters"},
    ChangesBuffer: {"leaves_buffers"},
    MutatesImages: {"leaves_images"},
    MutatesMaps: {"leaves_explanation"},
    SeedsGlobally: {"leaves_random_state"},
    ReadsTheGlobalSeed: {"same_under_any_global_seed"},
    LeavesGradModeOff: {"leaves_grad_mode"},
    SwallowsErrors: {"passes_errors_on"},
    ComparesWithTheBatch: {"same_for_a_subset", "same_beside_other_images"},
    DependsOnChunks: {"same_for_any_batch_size", "same_beside_other_images"},
    DependsOnPosition: {"same_in_any_order", "same_for_a_subset"},
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
    NeedsColour: {"takes_grey_images"},
    NeedsSquares: {"takes_wide_and_tall_images"},
    NeedsContrast: {"takes_black_images"},
    HidesItsPasses: {"costs_what_it_says"},
    ClaimsPasses: {"costs_what_it_says"},
    TakesAnyMaps: {"refuses_maps_that_do_not_fit"},
    CrashesOnMaps: {"refuses_maps_that_do_not_fit"},
    TakesAnyTruth: {"refuses_truth_that_does_not_fit"},
    TakesMasksAlone: {"takes_boxes_and_masks"},
    ReadsMemoryOrder: {"same_for_noncontiguous_tensors"},
    ReadsTheMode: {"same_in_any_state_of_the_model"},
    ReadsGradMode: {"same_under_no_grad", "same_under_inference_mode"},
    ReadsInferenceMode: {"same_under_inference_mode"},
    Remembers: {"keeps_nothing"},
    IgnoresItsSeed: {"follows_its_seed"},
    ReturnsLowPrecision: {"runs_in_low_precision"},
    Thawed: {"is_a_frozen_dataclass"},
    Tightlipped: {"shows_its_recipe"},
    HasNoFormula: {"has_a_spec"},
    HasNoRange: {"has_a_spec", "stays_within_its_bounds"},
    AsksNothingKnown: {"has_a_spec"},
    LocalisesByLabels: {"has_a_spec"},
    Shouts: {"has_a_spec"},
    Unexplained: {"excuses_little"},
    ExcusesTheInexcusable: {"excuses_little", "same_in_any_order", "same_for_a_subset"},
    ExcusedWithoutNeed: {"takes_grey_images"},
    local_class(): {"survives_pickling"},
}


def broken(metric: Metric) -> dict[str, str]:
    return {r.check: r.message for r in check_metric(metric) if r.outcome == "broken"}


def test_good_metric_keeps_every_promise():
    assert {(r.outcome, r.message) for r in check_metric(Good())} == {("kept", "")}


@pytest.mark.parametrize("kind", CAUGHT, ids=lambda kind: kind.__name__)
def test_bad_metric_is_caught_by_its_check(kind):
    found = broken(kind())
    assert set(found) == CAUGHT[kind]
    assert all("\n" not in message and message for message in found.values())


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


def test_every_check_catches_something():
    """No check that cannot fail."""
    caught = set().union(*CAUGHT.values())
    assert {check.name for check in metric_checks(Good())} - caught == set()


@dataclass(frozen=True)
class Excused(Good):
    spec: ClassVar[MetricSpec] = spec(exceptions={"stays_on_device": "contours by OpenCV"})

    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth).cpu()


def test_exception_excuses_its_check_alone():
    results = {result.check: result for result in check_metric(Excused())}
    assert results["stays_on_device"] == CheckResult(
        "stays_on_device", "excused", "contours by OpenCV"
    )
    assert {r.outcome for r in results.values() if r.check != "stays_on_device"} == {"kept"}
    (check,) = (c for c in metric_checks(Excused()) if c.name == "stays_on_device")
    check()  # an excused check does not fail a plugin author's test


def test_check_raises_one_sentence():
    (check,) = (c for c in metric_checks(LeaksHook()) if c.name == "leaves_hooks")
    assert str(check) == "leaves_hooks"
    with pytest.raises(ContractError, match=r"^bad changed _forward_hooks of module 'fc', seen"):
        check()


def test_bad_metric_does_no_harm_to_the_next_check():
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    check_metric(LeavesGradModeOff())
    check_metric(DrawsGlobally())
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


def test_checks_refuse_what_is_no_metric_object():
    with pytest.raises(
        TypeError, match=r"must be a Metric object such as MyMetric\(\), got <class"
    ):
        metric_checks(Good)
    with pytest.raises(UnknownNameError, match="no metric 'sparsness': did you mean sparseness"):
        check_metric("sparsness")
