"""Every registered metric keeps the contract, and costs what it says."""

import pytest

import xcam
from xcam.registry import installed
from xcam.testing import metric_checks

CHECKS = [check for name in xcam.list_metrics() for check in metric_checks(xcam.get_metric(name)())]
OWN = [name for name in xcam.list_metrics() if installed().owners[name].startswith("xcam:")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.subject.spec.name}-{check}")
def test_contract(check):
    check()


def test_all_of_xcams_metrics_are_checked():
    from xcam.metrics import METRICS

    assert {check.subject.spec.name for check in CHECKS} >= {cls.spec.name for cls in METRICS}
    assert {cls.spec.name for cls in METRICS} == set(OWN)
