"""The contracts that every method and metric keeps, as checks that anyone can run on theirs."""

from xcam.testing.check import Check, CheckResult, Outcome, group_by_cause
from xcam.testing.probe import ContractError
from xcam.testing.suite import check_method, check_metric, method_checks, metric_checks, quick

__all__ = [
    "Check",
    "CheckResult",
    "ContractError",
    "Outcome",
    "check_method",
    "check_metric",
    "group_by_cause",
    "method_checks",
    "metric_checks",
    "quick",
]
