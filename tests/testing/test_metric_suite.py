"""The contract suite of metrics: every check catches something, and none does harm."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import test_metric_answers
import test_metric_claims
import test_metric_sameness
import test_metric_traces
import torch
from good_metric import Good, spec
from test_metric_answers import DrawsGlobally
from test_metric_traces import LeaksHook, LeavesGradModeOff

from xcam.core import MetricSpec
from xcam.errors import UnknownNameError
from xcam.testing import CheckResult, ContractError, check_metric, metric_checks

BAD = [test_metric_answers, test_metric_claims, test_metric_sameness, test_metric_traces]


def test_good_metric_keeps_every_promise():
    assert {(r.outcome, r.message) for r in check_metric(Good())} == {("kept", "")}


def test_every_check_catches_something():
    """No check that cannot fail."""
    caught = {check for module in BAD for checks in module.CAUGHT.values() for check in checks}
    assert {check.name for check in metric_checks(Good())} - caught == set()


@dataclass(frozen=True)
class Excused(Good):
    spec: ClassVar[MetricSpec] = spec(exceptions={"stays_on_device": "contours by OpenCV"})

    def score(self, model, images, explanation, truth=None):
        return super().score(model, images, explanation, truth).cpu()


def test_exception_excuses_its_check_alone():
    results = {result.check: result for result in check_metric(Excused())}
    assert results["stays_on_device"] == CheckResult(
        "stays_on_device", "excused", "contours by OpenCV"
    )
    assert {r.outcome for r in results.values() if r.check != "stays_on_device"} == {"kept"}
    (check,) = (c for c in metric_checks(Excused()) if c.name == "stays_on_device")
    check()  # an excused check does not fail a plugin author's test


def test_check_raises_one_sentence():
    (check,) = (c for c in metric_checks(LeaksHook()) if c.name == "leaves_hooks")
    assert str(check) == "leaves_hooks"
    with pytest.raises(ContractError, match=r"^bad changed _forward_hooks of module 'fc', seen"):
        check()


def test_bad_metric_does_no_harm_to_the_next_check():
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    check_metric(LeavesGradModeOff())
    check_metric(DrawsGlobally())
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


def test_checks_refuse_what_is_no_metric_object():
    with pytest.raises(
        TypeError, match=r"must be a Metric object such as MyMetric\(\), got <class"
    ):
        metric_checks(Good)
    with pytest.raises(UnknownNameError, match="no metric 'sparsness': did you mean sparseness"):
        check_metric("sparsness")
