"""Metrics of pixels that are removed, and of where the map lies, give what Quantus recorded."""

import json

import pytest
from by_hand import explained
from record_quantus import FILE, Information, Pixels

from xcam.metrics import (
    AIC,
    SIC,
    AttributionLocalization,
    Completeness,
    FaithfulnessCorrelation,
    FaithfulnessEstimate,
    Monotonicity,
    NonSensitivity,
    TopKIntersection,
)

EVERYTHING = json.loads(FILE.read_text("utf-8"))
RECORDED = EVERYTHING["pixels"]
CORRELATION = FaithfulnessCorrelation(size=Pixels.size, n_samples=Pixels.samples)
ELEMENTS = NonSensitivity(n_segments=64, n_samples=1)


def scores(metric, net=Pixels.net, images=Pixels.images, maps=Pixels.maps, classes=Pixels.classes):
    return metric.score(net, images, explained(maps, classes), Pixels.masks).tolist()


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("faithfulness_correlation", CORRELATION),
        ("faithfulness_estimate", FaithfulnessEstimate(step=Pixels.step)),
        ("attribution_localization", AttributionLocalization(weighted=False)),
        ("top_k_intersection", TopKIntersection(top=9)),
        ("top_k_intersection_weighted", TopKIntersection(top=9, weighted=True)),
    ],
)
def test_scores_are_those_of_quantus(name, metric):
    assert scores(metric) == pytest.approx(RECORDED[name], abs=1e-5)


def test_axioms_are_those_of_quantus():
    linear = {"net": Pixels.linear(), "images": Pixels.integers, "classes": [0, 0, 0]}
    shares = Pixels.shares()
    assert scores(Completeness(tolerance=0), maps=shares, **linear) == RECORDED["complete"]
    assert scores(Completeness(tolerance=0), maps=shares * 2, **linear) == RECORDED["incomplete"]
    # The pixels whose lowest value, 0, is their own, do not change there; here they do.
    found = scores(ELEMENTS, maps=Pixels.integers[:, 0], **linear)
    dark = (Pixels.integers.flatten(1) == 0) & (Pixels.weights[0] != 0)
    assert [64 * share - int(n) for share, n in zip(found, dark.sum(1), strict=True)] == (
        pytest.approx(RECORDED["non_sensitivity"])
    )


def test_quantus_monotonicity_is_one_for_every_map():
    assert RECORDED["monotonicity"] == [1, 1, 1]
    assert scores(Monotonicity(step=Pixels.step)) == [0, 0, 0]


@pytest.mark.parametrize("kind", [SIC, AIC])
@pytest.mark.parametrize("monotonic", [True, False])
def test_information_curves_are_those_of_saliency(kind, monotonic):
    """But for bytes, to which their pictures are rounded before the net sees them."""
    metric = kind(Information.fractions, Information.visible, monotonic=monotonic)
    about = (Information.Net(), Information.images, explained(Information.maps, [1, 1, 1]))
    areas = metric.finish(metric.score(*about)).tolist()
    recorded = EVERYTHING["information"][f"{metric.spec.name}_{monotonic}"]
    assert areas == pytest.approx(recorded, abs=0.005)
