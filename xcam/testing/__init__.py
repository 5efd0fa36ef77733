"""The contract that every method keeps, as checks that anyone can run on theirs."""

from xcam.testing.probe import ContractError
from xcam.testing.suite import (
    Check,
    CheckResult,
    Outcome,
    check_method,
    method_checks,
    quick,
)

__all__ = [
    "Check",
    "CheckResult",
    "ContractError",
    "Outcome",
    "check_method",
    "method_checks",
    "quick",
]
