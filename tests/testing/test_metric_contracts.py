"""Every registered metric keeps the contract, and costs what it says."""

import math

import pytest
from coarse import make_coarse

import xcam
from xcam.core import MetricSpec
from xcam.registry import installed
from xcam.testing import check_metric, quick
from xcam.testing.metric_subject import MetricSubject
from xcam.testing.probe import ProbeNet

OWN = [name for name in xcam.list_metrics() if installed().owners[name].startswith("xcam:")]


@pytest.mark.parametrize("name", xcam.list_metrics())
def test_contract(name):
    results = check_metric(make_coarse(name))
    assert [result for result in results if result.outcome == "broken"] == []


def test_all_of_xcams_metrics_are_checked():
    from xcam.metrics import METRICS

    assert {cls.spec.name for cls in METRICS} == set(OWN)


@pytest.mark.parametrize(
    ("better", "bounds", "words"),
    [
        (True, (0.0, 1.0), ("higher", "[0, 1]")),
        (False, (0.0, math.inf), ("lower", "[0, ∞)")),
        (None, (-math.inf, 100.0), ("neither", "(−∞, 100]")),
        (True, (-0.5, 0.5), ("higher", "[−0.5, 0.5]")),
    ],
)
def test_spec_in_words(better, bounds, words):
    spec = MetricSpec("x", "X", "", "", higher_is_better=better, bounds=bounds)
    assert (spec.direction, spec.interval) == words


def test_few_metrics_need_exceptions():
    excused = {name: dict(xcam.get_metric(name).spec.exceptions) for name in OWN}
    assert {check for exceptions in excused.values() for check in exceptions} <= {
        "stays_on_device",
        "refuses_maps_that_do_not_fit",
        "follows_its_seed",
    }
    assert sum(map(bool, excused.values())) <= 5


def stated(metric):
    """The sum that `spec.cost` is, without recomputed maps; an explanation counts as one pass."""
    words = metric.spec.cost.split(", or ")[0].replace("×", "*")
    words = words.replace(" explanations", "").replace(" explanation", "")
    return eval(words, {"len": len}, metric.parameters())


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("default", [True, False])
def test_passes(name, default):
    """By Grad-CAM, whose explanation is one pass."""
    net, rows = ProbeNet(), []
    metric = quick(xcam.get_metric(name)()) if default else make_coarse(name)
    subject = MetricSubject(metric)
    case = subject.build_case().select([0, 1])
    net.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    subject.run(case, net)
    assert sum(rows) == pytest.approx(2 * stated(metric), abs=1e-9)


def test_passes_of_maps_made_again():
    metric, net, rows = xcam.get_metric("selectivity")(steps=3, recompute=True), ProbeNet(), []
    assert metric.spec.cost.endswith(", or 1 + steps explanations with recompute")
    subject = MetricSubject(metric)
    case = subject.build_case().select([0, 1])
    net.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    subject.run(case, net)
    assert sum(rows) == 2 * (1 + 3)
