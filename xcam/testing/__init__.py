"""The contracts that every method and metric keeps, as checks that anyone can run on theirs."""

from xcam.testing.check import Check, CheckResult, Outcome
from xcam.testing.metrics import check_metric, metric_checks
from xcam.testing.probe import ContractError
from xcam.testing.suite import check_method, method_checks, quick

__all__ = [
    "Check",
    "CheckResult",
    "ContractError",
    "Outcome",
    "check_method",
    "check_metric",
    "method_checks",
    "metric_checks",
    "quick",
]
