"""Occlusion keeps what every method of xcam promises, one test a promise."""

import pytest
from xcam_example import Occlusion

from xcam.testing import method_checks


@pytest.mark.parametrize("check", method_checks(Occlusion(cells=4)), ids=str)
def test_contract(check):
    check()
