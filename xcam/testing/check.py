"""`Check`: one promise of a contract, how it is run, and what came of it."""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from xcam.core import Method, MethodSpec, Metric, MetricSpec
from xcam.engine import untouched
from xcam.testing.probe import ContractError

__all__ = ["Check", "CheckResult", "Outcome", "group_by_cause"]

Outcome = Literal["kept", "broken", "excused"]


@dataclass(frozen=True)
class CheckResult:
    """What came of a check.

    Attributes:
        check: The name of the check.
        outcome: `"kept"`; `"broken"`; or `"excused"`: broken, as `spec.exceptions` of the method
            or metric says.
        message: What is wrong, or the reason of the excuse; empty if the check is kept.
        where: File and line of the cause, `"my_cam.py:41"`: where an error came up in the author's
            own code, or the class if there was none; empty if the check is not broken.
    """

    check: str
    outcome: Outcome
    message: str = ""
    where: str = ""


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
        """Pass if the promise is kept, or excused.

        Raises:
            ContractError: It is broken, in one sentence.
        """
        kind, excuse = type(self.subject).__name__, self._find_excuse()
        try:
            with _shielded():
                self.test()
        except Exception as error:
            if excuse is not None:
                return
            if isinstance(error, ContractError):
                raise
            sentence = " ".join(f"{type(error).__name__}: {error}".split())
            raise ContractError(f"{kind} raised {sentence}") from error
        if excuse is not None:
            raise ContractError(
                f"{kind} keeps {self.name}, but its spec.exceptions excuses it; take that line out"
            )

    def __str__(self) -> str:
        """Return the name, so that pytest's `ids=str` reads well."""
        return self.name

    def result(self) -> CheckResult:
        """Run the check, and return what came of it instead of raising."""
        try:
            self()
        except ContractError as error:
            where = _locate(error, type(self.subject))
            return CheckResult(self.name, "broken", str(error), where)
        excuse = self._find_excuse()
        return CheckResult(self.name, "excused" if excuse else "kept", excuse or "")

    def _find_excuse(self) -> str | None:
        spec = getattr(self.subject, "spec", None)
        if not isinstance(spec, MethodSpec | MetricSpec) or not self.excusable:
            return None
        return spec.exceptions.get(self.name) or None


def group_by_cause(results: Iterable[CheckResult]) -> list[list[CheckResult]]:
    """Group results that have one cause: the same message, or the same error of the same line."""
    groups: dict[tuple[str, ...], list[CheckResult]] = {}
    for result in results:
        groups.setdefault(_identify_cause(result), []).append(result)
    return list(groups.values())


def _identify_cause(result: CheckResult) -> tuple[str, ...]:
    head = result.message.partition(": ")[0]
    if result.outcome == "broken" and " raised " in head:
        return result.outcome, result.where, head
    return result.outcome, result.message or result.check


def _locate(error: BaseException | None, kind: type) -> str:
    """Return the innermost line of the author's package in a traceback, or that of the class."""
    module = kind.__module__  # xcam's own methods lie in one package with the checks
    package = module if module.startswith("xcam.") else module.split(".")[0]
    while error is not None:
        for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
            if f"{frame.f_globals.get('__name__')}.".startswith(f"{package}."):
                return _shorten(frame.f_code.co_filename, line)
        error = error.__cause__
    try:
        return _shorten(inspect.getfile(kind), inspect.getsourcelines(kind)[1])
    except (OSError, TypeError):  # typed into a session
        return ""


def _shorten(file: str, line: int) -> str:
    path, here = Path(file), Path.cwd()
    return f"{os.path.relpath(path) if path.is_relative_to(here) else path}:{line}"


@contextmanager
def _shielded() -> Iterator[None]:
    """Keep what a bad subject does to the global random states and modes from the next check."""
    precision, autocast = torch.get_default_dtype(), torch.is_autocast_enabled("cpu")
    with untouched(nn.Identity()), torch.set_grad_enabled(torch.is_grad_enabled()):
        try:
            yield
        finally:
            torch.set_default_dtype(precision)
            torch.set_autocast_enabled("cpu", autocast)
