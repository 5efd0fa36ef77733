"""What the package brings keeps what everything in xcam promises, one test a promise."""

import pytest
from xcam_example import CellCorrelation, ElementwiseGradCAM, Gate, HalfKept, HiddenCells

from xcam.testing import method_checks, metric_checks

METHODS = [ElementwiseGradCAM(), Gate(), HiddenCells(cells=4)]
METRICS = [CellCorrelation(), HalfKept()]
CHECKS = [check for method in METHODS for check in method_checks(method)]
CHECKS += [check for metric in METRICS for check in metric_checks(metric)]


def name(check):
    return f"{check.subject.spec.name}-{check}"


@pytest.mark.parametrize("check", CHECKS, ids=name)
def test_contract(check):
    check()
