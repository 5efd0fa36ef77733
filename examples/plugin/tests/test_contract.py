"""What the package brings keeps what everything in xcam promises, one test a promise."""

import pytest
from xcam_example import CellCorrelation, Occlusion

from xcam.testing import method_checks, metric_checks

CHECKS = [*method_checks(Occlusion(cells=4)), *metric_checks(CellCorrelation())]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_contract(check):
    check()
