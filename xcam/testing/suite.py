"""The contracts of methods and metrics: which checks there are, and how they are run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Metric, MetricSpec, Settings, TrainableMethod
from xcam.registry import get_method, get_metric
from xcam.testing.check import Check, CheckResult
from xcam.testing.checks import claims, inputs, maps, sameness, scores, settings, traces, training
from xcam.testing.checks.facets import FACETS, AnySubject
from xcam.testing.method_subject import MethodSubject
from xcam.testing.metric_subject import MetricSubject
from xcam.testing.probe import ContractError

__all__ = ["check_method", "check_metric", "method_checks", "metric_checks", "quick"]

R = TypeVar("R", bound=Settings)

_FEW = {
    "n_masks": 16,
    "n_scales": 2,
    "n_segments": 4,
    "n_samples": 3,
    "n_steps": 4,
    "n_iterations": 3,
    "iterations": 3,
}
_NEVER_EXCUSED = frozenset(
    [
        "has_a_spec",
        "excuses_little",
        "passes_errors_on",
        *(test.__name__ for test in sameness.BATCHING),
        *map(traces.name_check, FACETS),
    ]
)


def method_checks(
    method: Method, net: nn.Module | None = None, images: Tensor | None = None
) -> list[Check]:
    """Return the checks that every method passes, for the tests of whoever writes one.

    One test a promise, in pytest or anything else::

        @pytest.mark.parametrize("check", method_checks(MyCAM()), ids=str)
        def test_contract(check):
            check()

    They run the method with few passes (see `quick`); on the small nets a check takes milliseconds.

    Args:
        method: The method, with the parameters to check it with.
        net: A classifier that the method explains, (B, C, H, W) to two or more logits; copied, in
            eval mode, for every check. None for a small CNN. For a trainable method the classifier
            without the head.
        images: (B, C, H, W) that `net` takes, at least three and different; the first five are
            used. None for noise of the net's `input_size`, or 16×16.

    Raises:
        TypeError: `method` is no Method object, or `net` no module.
        ValueError: The net fails on the images, or has fewer than two logits; or there are fewer
            than three images.
    """
    if not isinstance(method, Method):
        raise TypeError(f"method must be a Method object such as MyCAM(), got {method!r}")
    if not isinstance(getattr(method, "spec", None), MethodSpec):
        raise TypeError(f"{type(method).__name__} must have a class attribute spec, a MethodSpec")
    subject = MethodSubject(quick(method), net, images)
    tests = [*maps.CHECKS, *sameness.METHODS, *claims.METHODS]
    if isinstance(method, TrainableMethod):
        tests += training.CHECKS
    return _collect(subject, tests, [facet for facet in FACETS if facet != "explanation"])


def metric_checks(
    metric: Metric, net: nn.Module | None = None, images: Tensor | None = None
) -> list[Check]:
    """Return the checks that every metric passes, for the tests of whoever writes one.

    Used like `method_checks`::

        @pytest.mark.parametrize("check", metric_checks(MyMetric()), ids=str)
        def test_contract(check):
            check()

    Args:
        metric: The metric, with the parameters to check it with.
        net: The classifier whose maps are scored, as for `method_checks`; they are Grad-CAM's, or
            the plain gradient's where Grad-CAM finds no layer.
        images: As for `method_checks`.

    Raises:
        TypeError: `metric` is no Metric object, or `net` no module.
        ValueError: As by `method_checks`.
    """
    if not isinstance(metric, Metric):
        raise TypeError(f"metric must be a Metric object such as MyMetric(), got {metric!r}")
    if not isinstance(getattr(metric, "spec", None), MetricSpec):
        raise TypeError(f"{type(metric).__name__} must have a class attribute spec, a MetricSpec")
    subject = MetricSubject(quick(metric), net, images)
    return _collect(subject, [*scores.CHECKS, *sameness.METRICS, *claims.METRICS], list(FACETS))


def _collect(
    subject: AnySubject, tests: Sequence[Callable[[Any], None]], facets: list[str]
) -> list[Check]:
    """Return these checks of a subject with those that methods and metrics share."""
    shared: list[Callable[[AnySubject], None]] = [claims.has_a_spec, *settings.CHECKS]
    shared += [*inputs.CHECKS, *sameness.BATCHING, *sameness.SURROUNDINGS]
    record = traces.Record(subject)
    named: dict[str, Callable[[], None]] = {
        test.__name__: partial(test, subject) for test in (*shared, *tests)
    }
    named["passes_errors_on"] = record.passes_errors_on
    for facet in facets:
        named[traces.name_check(facet)] = partial(record.require_unchanged, facet)
    named["excuses_little"] = partial(excuses_little, subject, frozenset(named))
    return [
        Check(name, subject.settings, test, name not in _NEVER_EXCUSED)
        for name, test in named.items()
    ]


def excuses_little(subject: AnySubject, names: frozenset[str]) -> None:
    """Require that `spec.exceptions` names checks that may be excused, each with a reason."""
    for name, reason in subject.spec.exceptions.items():
        if name not in names:
            raise ContractError(f"{subject.name}: spec.exceptions names no check {name!r}")
        if name in _NEVER_EXCUSED:
            raise ContractError(f"{subject.name}: {name} can never be excused")
        if not (isinstance(reason, str) and reason.strip()):
            raise ContractError(f"{subject.name}: the exception for {name} needs a reason")


def check_method(
    method: str | Method, net: nn.Module | None = None, images: Tensor | None = None
) -> list[CheckResult]:
    """Check a method against the whole contract, and return the table.

    Args:
        method: A name from `xcam.list_methods()`, or a method object.
        net: See `method_checks`.
        images: See `method_checks`.

    Raises:
        UnknownNameError: There is no such method.
        TypeError: Neither a name nor a method object.
    """
    chosen = get_method(method)() if isinstance(method, str) else method
    return [check.result() for check in method_checks(chosen, net, images)]


def check_metric(
    metric: str | Metric, net: nn.Module | None = None, images: Tensor | None = None
) -> list[CheckResult]:
    """Check a metric against the whole contract, and return the table.

    Args:
        metric: A name from `xcam.list_metrics()`, or a metric object.
        net: See `metric_checks`.
        images: See `metric_checks`.

    Raises:
        UnknownNameError: There is no such metric.
        TypeError: Neither a name nor a metric object.
    """
    chosen = get_metric(metric)() if isinstance(metric, str) else metric
    return [check.result() for check in metric_checks(chosen, net, images)]


def quick(settings: R) -> R:
    """Return the method or metric with few passes, if one of the usual fields sets their number.

    These are `n_masks` (16), `n_scales` (2), `n_segments` (4), `n_samples` (3), `n_steps` (4),
    `n_iterations` and `iterations` (3): integers that are larger become as small. One with other
    expensive fields is handed to `method_checks` or `metric_checks` with small values.
    """
    large = {
        name: few
        for name, few in _FEW.items()
        if isinstance(getattr(settings, name, None), int) and getattr(settings, name) > few
    }
    return dataclasses.replace(settings, **large) if large else settings  # type: ignore[type-var]
