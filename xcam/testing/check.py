"""`Check`: one promise of a contract, how it is run, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from xcam.core import Method, MethodSpec, Metric, MetricSpec
from xcam.engine import untouched
from xcam.testing.probe import ContractError

__all__ = ["Check", "CheckResult", "Outcome", "require_few_excuses"]

Outcome = Literal["kept", "broken", "excused"]


@dataclass(frozen=True)
class CheckResult:
    """What came of a check.

    Attributes:
        check: The name of the check.
        outcome: `"kept"`; `"broken"`; or `"excused"`: broken, as `spec.exceptions` of the method
            or metric says.
        message: What is wrong, or the reason of the excuse; empty if the check is kept.
    """

    check: str
    outcome: Outcome
    message: str = ""


@dataclass(frozen=True)
class Check:
    """One promise of the contract, to be checked of one method or metric; call it.

    Attributes:
        name: What is promised, such as `"leaves_hooks"`.
        subject: The method or metric.
        test: What raises a `ContractError` if the subject does not keep the promise.
        excusable: Whether `spec.exceptions` may name it.
    """

    name: str
    subject: Method | Metric
    test: Callable[[], None]
    excusable: bool = True

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
                raise ContractError(f"{type(self.subject).__name__} raised {sentence}") from error
        else:
            if self._excuse() is not None:
                raise ContractError(
                    f"{type(self.subject).__name__} keeps {self.name}, but its spec.exceptions "
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
        spec = getattr(self.subject, "spec", None)
        if not isinstance(spec, MethodSpec | MetricSpec) or not self.excusable:
            return None
        return spec.exceptions.get(self.name) or None


def require_few_excuses(
    subject: Method | Metric, names: frozenset[str], never: frozenset[str]
) -> None:
    """Checks that `spec.exceptions` names some of these checks, each with a reason.

    Raises:
        ContractError: It names no check, one that is `never` excused, or gives no reason.
    """
    for name, reason in subject.spec.exceptions.items():
        if name not in names:
            raise ContractError(f"{subject.spec.name}: spec.exceptions names no check {name!r}")
        if name in never:
            raise ContractError(f"{subject.spec.name}: {name} can never be excused")
        if not (isinstance(reason, str) and reason.strip()):
            raise ContractError(f"{subject.spec.name}: the exception for {name} needs a reason")


@contextmanager
def _shielded() -> Iterator[None]:
    """Keeps what a bad subject does to the global random states and modes from the next check."""
    precision, autocast = torch.get_default_dtype(), torch.is_autocast_enabled("cpu")
    with untouched(nn.Identity()), torch.set_grad_enabled(torch.is_grad_enabled()):
        try:
            yield
        finally:
            torch.set_default_dtype(precision)
            torch.set_autocast_enabled("cpu", autocast)
