"""Metrics that leave a trace, on the model, the images or themselves."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from good_metric import Good, assert_caught, last

from xcam.core import Metric


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
class Remembers(Good):
    def score(self, model, images, explanation, truth=None):
        object.__setattr__(self, "last", images.shape)
        return super().score(model, images, explanation, truth)


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
    LeavesGradModeOff: {"leaves_grad_mode"},
    SwallowsErrors: {"passes_errors_on"},
    Remembers: {"keeps_nothing"},
}


@pytest.mark.parametrize("kind", CAUGHT, ids=lambda kind: kind.__name__)
def test_bad_metric_is_caught_by_its_check(kind):
    assert_caught(kind, CAUGHT[kind])
