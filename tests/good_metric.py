"""A metric that is wrong in nothing, for those that are wrong in one thing each."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Explanation, Metric, MetricSpec
from xcam.engine import forward, untouched
from xcam.engine.chunks import collect
from xcam.metrics.inputs import read_maps, read_target
from xcam.testing import check_metric


def left(model: nn.Module, images: Tensor, maps: Tensor, explanation: Explanation) -> Tensor:
    """The honest work of the metrics here, (B,): the class's probability behind the map."""
    target = read_target(explanation, images)
    low, high = maps.flatten(1).aminmax(dim=1)
    masks = (maps - low[:, None, None]) / (high - low).clamp(min=1e-6)[:, None, None]

    def step(part: slice) -> Tensor:
        rows = torch.arange(part.start, part.stop)
        output = forward.call(model, images[rows] * masks[rows, None])
        return target.scores(output, rows, output="prob")

    return collect(len(images), step, images)


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
        maps = read_maps(explanation, images)
        with untouched(model), torch.no_grad():
            return left(model, images, maps, explanation)

    def finish(self, mean: Tensor) -> Tensor:
        return mean


def last(model: nn.Module) -> nn.Module:
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


def broken(metric: Metric) -> dict[str, str]:
    return {r.check: r.message for r in check_metric(metric) if r.outcome == "broken"}


def assert_caught(kind: type[Metric], checks: set[str]) -> None:
    """These checks fail, each with a sentence, and no others."""
    found = broken(kind())
    assert set(found) == checks
    assert all("\n" not in message and message for message in found.values())
