"""Every registered metric keeps the contract, and costs what it says."""

import dataclasses
import math

import pytest

import xcam
from xcam.core import MetricSpec
from xcam.registry import installed
from xcam.testing import metric_checks, quick
from xcam.testing.metrics.case import made, scored
from xcam.testing.probe import ProbeNet, pictures

CHECKS = [check for name in xcam.list_metrics() for check in metric_checks(xcam.get_metric(name)())]
OWN = [name for name in xcam.list_metrics() if installed().owners[name].startswith("xcam:")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.subject.spec.name}-{check}")
def test_contract(check):
    check()


def test_all_of_xcams_metrics_are_checked():
    from xcam.metrics import METRICS

    assert {check.subject.spec.name for check in CHECKS} >= {cls.spec.name for cls in METRICS}
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
    }
    assert sum(map(bool, excused.values())) <= 5


def times(passes):
    return lambda metric: passes


def each_step(metric):
    return 1 + round(1 / metric.step)


def each_fraction(passes):
    return lambda metric: passes * len(metric.fractions)


# Images through the model for each image scored; an explanation by Grad-CAM counts as one.
PASSES = {
    "accuracy": times(1),
    "adcc": times(3),
    "arcc": lambda metric: 1 + 2 * len(metric.fractions),
    "average_drop": times(2),
    "average_gain": times(2),
    "coherency": times(1),
    "complexity": times(0),
    "deletion": each_step,
    "energy_pointing_game": times(0),
    "entropy": times(0),
    "increase_in_confidence": times(2),
    "insertion": each_step,
    "irof": lambda metric: metric.n_segments + 1,
    "masked_accuracy": times(1),
    "max_box_acc": times(0),
    "max_box_acc_v2": times(0),
    "perturbation_accuracy_negative": each_fraction(1),
    "perturbation_accuracy_positive": each_fraction(1),
    "pixel_flipping": each_step,
    "pointing_game": times(0),
    "pxap": times(0),
    "relevance_rank": times(0),
    "remove_and_classify": each_fraction(2),
    "road": each_fraction(2),
    "road_lerf": each_fraction(1),
    "road_morf": each_fraction(1),
    "selectivity": lambda metric: metric.steps + 1,
    "sparseness": times(0),
}
OTHERS = {"fractions": (0.2, 0.6), "n_segments": 16, "step": 1 / 8, "steps": 4}


def test_every_metric_of_xcam_has_a_cost():
    assert sorted(PASSES) == OWN


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("default", [True, False])
def test_passes(name, default):
    metric, net, rows = quick(xcam.get_metric(name)()), ProbeNet(), []
    known = metric.parameters()
    changes = {field: value for field, value in OTHERS.items() if known.get(field) is not None}
    metric = metric if default else dataclasses.replace(metric, **changes)
    case = made(metric, pictures(2))
    net.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    scored(metric, case, net)
    assert sum(rows) == 2 * PASSES[name](metric)
