"""The contract of metrics: which checks there are, which may be excused, and how they are run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import get_args

from xcam.core import Metric, MetricSpec, Question, Truth
from xcam.registry import get_metric
from xcam.testing.check import Check, CheckResult, require_few_excuses
from xcam.testing.checks import recipes
from xcam.testing.checks.facets import SCORED, World, mixed
from xcam.testing.checks.traces import Record, leaves
from xcam.testing.metrics import answers, refusals, sameness
from xcam.testing.metrics.case import Case, made, scored
from xcam.testing.probe import ContractError, Fuse, PlannedError, probe_of
from xcam.testing.suite import quick

__all__ = ["check_metric", "metric_checks"]


def metric_checks(metric: Metric) -> list[Check]:
    """The checks that every metric passes, on a tiny net; for the tests of whoever writes one.

    Used like `method_checks`::

        @pytest.mark.parametrize("check", metric_checks(MyMetric()), ids=str)
        def test_contract(check):
            check()

    Args:
        metric: The metric, with the parameters to check it with.

    Raises:
        TypeError: `metric` is no Metric object.
    """
    if not isinstance(metric, Metric):
        raise TypeError(f"metric must be a Metric object such as MyMetric(), got {metric!r}")
    metric = quick(metric)
    record = Record(metric, partial(_visits, metric), SCORED)
    tests = {test.__name__: partial(test, metric) for test in _TESTS}
    tests |= {leaves(facet): partial(record.require_unchanged, facet) for facet in SCORED}
    return [Check(name, metric, test, name not in _NEVER_EXCUSED) for name, test in tests.items()]


def check_metric(metric: str | Metric) -> list[CheckResult]:
    """Checks a metric against the whole contract, and gives the table.

    Args:
        metric: A name from `xcam.list_metrics()`, or a metric object.

    Raises:
        UnknownNameError: There is no such metric.
        TypeError: Neither a name nor a metric object.
    """
    chosen = get_metric(metric)() if isinstance(metric, str) else metric
    return [check.result() for check in metric_checks(chosen)]


def has_a_spec(metric: Metric) -> None:
    """Name, title, paper, formula and cost are filled in; the rest is what it can be."""
    spec, kind = getattr(metric, "spec", None), type(metric).__name__
    if not isinstance(spec, MetricSpec):
        raise ContractError(f"{kind} must have a class attribute `spec`, a MetricSpec")
    if not (spec.name.isidentifier() and spec.name == spec.name.lower()):
        raise ContractError(f"{kind}: spec.name must be a lower-case identifier, got {spec.name!r}")
    for name in ("title", "paper", "formula", "cost"):
        if not getattr(spec, name).strip():
            raise ContractError(f"{kind}: spec.{name} is empty")
    if spec.question not in get_args(Question) or spec.truth not in get_args(Truth):
        raise ContractError(f"{kind}: no question {spec.question!r} with truth {spec.truth!r}")
    if (spec.question == "localization") != (spec.truth in ("boxes", "masks")):
        raise ContractError(f"{kind}: localisation, and nothing else, needs boxes or masks")
    if spec.higher_is_better not in (True, False, None):
        raise ContractError(f"{kind}: spec.higher_is_better must be True, False or None")
    low, high = spec.bounds
    if math.isnan(low) or math.isnan(high) or low >= high:
        raise ContractError(f"{kind}: spec.bounds must ascend, got {spec.bounds}")


def excuses_little(metric: Metric) -> None:
    """`spec.exceptions` names existing checks that may be excused, each with a reason."""
    require_few_excuses(metric, _NAMES, _NEVER_EXCUSED)


@dataclass(frozen=True)
class _Visit:
    """One call of `score`, on a model in a mixture of states.

    Attributes:
        metric: The metric.
        net: Counts the passes, and fails one.
    """

    metric: Metric
    net: Fuse = field(default_factory=Fuse)

    def __str__(self) -> str:
        return f"score whose model fails in pass {self.net.limit}" if self.planned else "score"

    @property
    def planned(self) -> bool:
        """Whether a failure is planned."""
        return self.net.limit is not None

    def world(self) -> World:
        """A fresh one."""
        world = mixed()
        probe_of(world.net).fuse = self.net
        case = made(self.metric, world.images.detach().clone())
        return World(world.net, world.images, case.explanation, case.truth)

    def run(self, world: World) -> None:
        """Makes the call.

        Raises:
            PlannedError: As planned, if the metric lets it through.
        """
        if world.explanation is not None:
            scored(self.metric, Case(world.images, world.explanation, world.truth), world.net, 2)


def _visits(metric: Metric) -> Iterator[_Visit]:
    """Success; failure in the first, a middle and the last pass, if there are any."""
    success = _Visit(metric)
    yield success
    for fuse in success.net.failures():
        yield _Visit(metric, fuse)


def passes_errors_on(metric: Metric) -> None:
    """An error in the model reaches the caller."""
    for visit in _visits(metric):
        try:
            visit.run(visit.world())
        except PlannedError:
            continue
        if visit.planned:
            raise ContractError(
                f"{metric.spec.name} swallowed the error of {visit}; let it reach the caller"
            )


_TESTS: tuple[Callable[[Metric], None], ...] = (
    has_a_spec,
    *recipes.CHECKS,
    excuses_little,
    *answers.CHECKS,
    *refusals.CHECKS,
    *sameness.BATCHING,
    *sameness.SURROUNDINGS,
    passes_errors_on,
)

_NAMES = frozenset([*(test.__name__ for test in _TESTS), *map(leaves, SCORED)])

_NEVER_EXCUSED = frozenset(
    [
        *(test.__name__ for test in (has_a_spec, excuses_little, *sameness.BATCHING)),
        passes_errors_on.__name__,
        *map(leaves, SCORED),
    ]
)
