"""The contract of methods: which checks there are, which may be excused, and how they are run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from xcam.core import Method, Settings, TrainableMethod
from xcam.registry import get_method
from xcam.testing.check import Check, CheckResult, require_few_excuses
from xcam.testing.checks import answers, claims, recipes, sameness, traces, training
from xcam.testing.checks.facets import FACETS

__all__ = ["check_method", "method_checks", "quick"]

R = TypeVar("R", bound=Settings)

_FEW = {"n_masks": 16, "n_samples": 3, "n_steps": 4, "n_iterations": 3, "iterations": 3}


def method_checks(method: Method) -> list[Check]:
    """The checks that every method passes, on tiny nets; for the tests of whoever writes one.

    One test a promise, in pytest or anything else::

        @pytest.mark.parametrize("check", method_checks(MyCAM()), ids=str)
        def test_contract(check):
            check()

    They run the method with few passes (see `quick`); a check takes milliseconds.

    Args:
        method: The method, with the parameters to check it with.

    Raises:
        TypeError: `method` is no Method object.
    """
    if not isinstance(method, Method):
        raise TypeError(f"method must be a Method object such as MyCAM(), got {method!r}")
    method = quick(method)
    record = traces.Record(method, partial(traces.visits, method))
    tests = {test.__name__: partial(test, method) for test in _TESTS}
    if isinstance(method, TrainableMethod):
        tests |= {test.__name__: partial(test, method) for test in training.CHECKS}
    tests |= {traces.leaves(facet): partial(record.require_unchanged, facet) for facet in FACETS}
    return [Check(name, method, test, name not in _NEVER_EXCUSED) for name, test in tests.items()]


def check_method(method: str | Method) -> list[CheckResult]:
    """Checks a method against the whole contract, and gives the table.

    Args:
        method: A name from `xcam.list_methods()`, or a method object.

    Raises:
        UnknownNameError: There is no such method.
        TypeError: Neither a name nor a method object.
    """
    chosen = get_method(method)() if isinstance(method, str) else method
    return [check.result() for check in method_checks(chosen)]


def quick(subject: R) -> R:
    """The method or metric with few passes, if what they cost is set by one of the usual fields.

    These are `n_masks` (16), `n_samples` (3), `n_steps` (4), `n_iterations` and `iterations` (3):
    integers that are larger become as small. One with other expensive fields is handed to
    `method_checks` or `metric_checks` with small values.
    """
    large = {
        name: few
        for name, few in _FEW.items()
        if isinstance(getattr(subject, name, None), int) and getattr(subject, name) > few
    }
    return dataclasses.replace(subject, **large) if large else subject  # type: ignore[type-var]


def excuses_little(method: Method) -> None:
    """`spec.exceptions` names existing checks that may be excused, each with a reason."""
    require_few_excuses(method, _NAMES, _NEVER_EXCUSED)


_TESTS: tuple[Callable[[Method], None], ...] = (
    claims.has_a_spec,
    *recipes.CHECKS,
    *claims.CHECKS,
    excuses_little,
    *answers.CHECKS,
    *answers.TARGETS,
    *sameness.BATCHING,
    *sameness.SURROUNDINGS,
    traces.passes_errors_on,
)

_NAMES = frozenset(
    [*(test.__name__ for test in (*_TESTS, *training.CHECKS)), *map(traces.leaves, FACETS)]
)

_NEVER_EXCUSED = frozenset(
    [
        *(test.__name__ for test in (claims.has_a_spec, excuses_little, *sameness.BATCHING)),
        traces.passes_errors_on.__name__,
        *map(traces.leaves, FACETS),
    ]
)
