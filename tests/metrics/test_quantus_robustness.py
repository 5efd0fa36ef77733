"""Metrics of robustness, and infidelity, give what Quantus recorded on the same draws."""

import json

import pytest
from by_hand import explained
from record_quantus import FILE, Neighbors, Pixels

import xcam
from xcam.metrics import (
    Continuity,
    Infidelity,
    LocalLipschitz,
    MaxSensitivity,
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
)

RECORDED = json.loads(FILE.read_text("utf-8"))["robustness"]
GRADIENT = xcam.get_method("saliency")(reduce="sum")
FEW = {"n_samples": Neighbors.samples, "radius": Neighbors.radius}
GAUSSIAN = {"n_samples": Neighbors.samples, "radius": 0.1, "noise": "gaussian"}


@pytest.mark.parametrize(
    "metric",
    [
        MaxSensitivity(**FEW),
        LocalLipschitz(**GAUSSIAN, normalize=True),
        RelativeInputStability(**FEW),
        RelativeOutputStability(**FEW),
        RelativeRepresentationStability(**FEW, layer=Neighbors.layer),
        Continuity(n_steps=4),
    ],
    ids=lambda metric: metric.spec.name,
)
def test_scores_are_those_of_quantus(metric):
    of = Pixels if metric.spec.name == "continuity" else Neighbors
    explanation = xcam.explain(Neighbors.net, of.images, of.classes, GRADIENT)
    rows = metric.score(Neighbors.net, of.images, explanation)
    assert metric.finish(rows).tolist() == pytest.approx(RECORDED[metric.spec.name], rel=1e-4)


def test_infidelity_of_the_whole_image_is_that_of_quantus():
    """Of several blocks it removes each on top of those before, which is another definition."""
    metric = Infidelity(size=1.0, n_samples=1, scaled=False)
    found = metric.score(Neighbors.net, Pixels.images, explained(Pixels.maps, Pixels.classes))
    assert found.tolist() == pytest.approx(RECORDED["infidelity"], rel=1e-4)
