"""The contract suite: which checks there are, which may be excused, and how they are run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import nn

from xcam.core import Method, MethodSpec
from xcam.registry import get_method
from xcam.state import untouched
from xcam.testing import answers, claims, sameness, traces
from xcam.testing.facets import FACETS
from xcam.testing.probe import ContractError

__all__ = ["Check", "CheckResult", "Outcome", "check_method", "method_checks", "quick"]

Outcome = Literal["kept", "broken", "excused"]

_FEW = {"n_masks": 16, "n_samples": 3, "n_steps": 4, "n_iterations": 3, "iterations": 3}


@dataclass(frozen=True)
class CheckResult:
    """What came of a check.

    Attributes:
        check: The name of the check.
        outcome: `"kept"`; `"broken"`; or `"excused"`: broken, as the method's
            `spec.exceptions` says.
        message: What is wrong, or the reason of the excuse; empty if the check is kept.
    """

    check: str
    outcome: Outcome
    message: str = ""


@dataclass(frozen=True)
class Check:
    """One promise of the contract, to be checked of one method; call it.

    Attributes:
        name: What is promised, such as `"leaves_hooks"`.
        method: The method.
        test: What raises a `ContractError` if the method does not keep the promise.
    """

    name: str
    method: Method
    test: Callable[[], None]

    def __call__(self) -> None:
        """Does nothing if the promise is kept, or excused.

        Raises:
            ContractError: It is broken, in one sentence.
        """
        try:
            with _shielded():
                self.test()
        except ContractError:
            if self._excuse() is None:
                raise
        except Exception as error:
            if self._excuse() is None:
                sentence = " ".join(f"{type(error).__name__}: {error}".split())
                raise ContractError(f"{type(self.method).__name__} raised {sentence}") from error
        else:
            if self._excuse() is not None:
                raise ContractError(
                    f"{type(self.method).__name__} keeps {self.name}, but its spec.exceptions "
                    "excuses it; take that line out"
                )

    def __str__(self) -> str:
        """Its name, so that pytest's `ids=str` reads well."""
        return self.name

    def result(self) -> CheckResult:
        """Runs the check, and tells what came of it instead of raising."""
        try:
            self()
        except ContractError as error:
            return CheckResult(self.name, "broken", str(error))
        excuse = self._excuse()
        return CheckResult(self.name, "excused" if excuse else "kept", excuse or "")

    def _excuse(self) -> str | None:
        spec = getattr(self.method, "spec", None)
        if not isinstance(spec, MethodSpec) or self.name in _NEVER_EXCUSED:
            return None
        return spec.exceptions.get(self.name) or None


@contextmanager
def _shielded() -> Iterator[None]:
    """Keeps what a bad method does to the global random states and modes from the next check."""
    precision, autocast = torch.get_default_dtype(), torch.is_autocast_enabled("cpu")
    with untouched(nn.Identity()), torch.set_grad_enabled(torch.is_grad_enabled()):
        try:
            yield
        finally:
            torch.set_default_dtype(precision)
            torch.set_autocast_enabled("cpu", autocast)


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
    record = traces.Record(method)
    checks = [Check(test.__name__, method, partial(test, method)) for test in _TESTS]
    return checks + [
        Check(_leaves(facet), method, partial(record.require_unchanged, facet)) for facet in FACETS
    ]


def _leaves(facet: str) -> str:
    return f"leaves_{facet}"


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


def quick(method: Method) -> Method:
    """The method with few passes, if what they cost is set by one of the usual fields.

    These are `n_masks` (16), `n_samples` (3), `n_steps` (4), `n_iterations` and `iterations` (3):
    integers that are larger become as small. A method with other expensive fields is handed to
    `method_checks` with small values.
    """
    large = {
        name: few
        for name, few in _FEW.items()
        if isinstance(getattr(method, name, None), int) and getattr(method, name) > few
    }
    return dataclasses.replace(method, **large) if large else method  # type: ignore[type-var]


def excuses_little(method: Method) -> None:
    """`spec.exceptions` names existing checks that may be excused, each with a reason."""
    for name, reason in method.spec.exceptions.items():
        if name not in _NAMES:
            raise ContractError(f"{method.spec.name}: spec.exceptions names no check {name!r}")
        if name in _NEVER_EXCUSED:
            raise ContractError(f"{method.spec.name}: {name} can never be excused")
        if not (isinstance(reason, str) and reason.strip()):
            raise ContractError(f"{method.spec.name}: the exception for {name} needs a reason")


_TESTS: tuple[Callable[[Method], None], ...] = (
    *claims.CHECKS,
    excuses_little,
    *answers.CHECKS,
    *answers.TARGETS,
    *sameness.BATCHING,
    *sameness.SURROUNDINGS,
    traces.passes_errors_on,
)

_NAMES = frozenset([*(test.__name__ for test in _TESTS), *map(_leaves, FACETS)])

_NEVER_EXCUSED = frozenset(
    [
        *(test.__name__ for test in (claims.has_a_spec, excuses_little, *sameness.BATCHING)),
        traces.passes_errors_on.__name__,
        *map(_leaves, FACETS),
    ]
)
