"""Metrics whose rows depend on what they must not depend on."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from good_metric import Good, assert_caught, last

from xcam.core import Metric
from xcam.engine import forward


@dataclass(frozen=True)
class ReadsTheGlobalSeed(Good):
    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth) / (1 + torch.initial_seed() % 2)


@dataclass(frozen=True)
class ComparesWithTheBatch(Good):
    def score(self, model, images, explanation, truth=None):
        scores = super().score(model, images, explanation, truth)
        return scores / scores.max()


@dataclass(frozen=True)
class DependsOnChunks(Good):
    def score(self, model, images, explanation, truth=None):
        size = forward.current_runtime().batch_size or 8
        return super().score(model, images, explanation, truth) * (1 - 1 / (1 + size))


@dataclass(frozen=True)
class DependsOnPosition(Good):
    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth) / torch.arange(1, len(images) + 1)


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
class IgnoresItsSeed(Good):
    seed: int = 0


@dataclass(frozen=True)
class ReturnsLowPrecision(Good):
    def score(self, model, images, explanation, truth=None):
        low = forward.current_runtime().precision == "bf16"
        return (
            super()
            .score(model, images, explanation, truth)
            .to(torch.bfloat16 if low else torch.float32)
        )


# What each breaks: these checks and no others.
CAUGHT: dict[type[Metric], set[str]] = {
    ReadsTheGlobalSeed: {"same_under_any_global_seed"},
    ComparesWithTheBatch: {"same_for_a_subset", "same_beside_other_images"},
    DependsOnChunks: {"same_for_any_batch_size", "same_beside_other_images"},
    DependsOnPosition: {"same_in_any_order", "same_for_a_subset"},
    ReadsMemoryOrder: {"same_for_noncontiguous_tensors"},
    ReadsTheMode: {"same_in_any_state_of_the_model"},
    ReadsGradMode: {"same_under_no_grad", "same_under_inference_mode"},
    ReadsInferenceMode: {"same_under_inference_mode"},
    IgnoresItsSeed: {"follows_its_seed"},
    ReturnsLowPrecision: {"runs_in_low_precision"},
}


@pytest.mark.parametrize("kind", CAUGHT, ids=lambda kind: kind.__name__)
def test_bad_metric_is_caught_by_its_check(kind):
    assert_caught(kind, CAUGHT[kind])
