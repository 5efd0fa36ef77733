"""xcam's warnings point at the line of the caller, from wherever they come."""

import inspect
import warnings
from pathlib import Path

import pytest
import torch
from nets import Pooled, pictures
from torch import nn

import xcam
from xcam.engine import capture

IMAGES = pictures(2)


class Twice(Pooled):
    """Calls one layer twice, the second time inside another module."""

    def __init__(self):
        super().__init__()
        self.again = nn.Sequential(self.features[3])

    def forward(self, images):
        features = self.features(images)
        return self.fc(self.avgpool(self.again(features)).flatten(1))


def flat(images):
    return xcam.Explanation.of(torch.zeros(2, 8, 8), images, target=[0, 1])


def captured():
    with capture(Twice(), "features.3") as tap:
        return tap(IMAGES)


CALLS = {
    "explain": lambda: xcam.explain(Twice(), IMAGES, 1, layer="features.3"),
    "metric": lambda: xcam.get_metric("insertion")(step=0.5)(Pooled(), IMAGES, flat(IMAGES)),
    "capture": captured,
    "normalized": lambda: flat(IMAGES).normalized(),
    "overlay": lambda: flat(IMAGES).overlay(IMAGES),
    "stability_iou": lambda: xcam.stability_iou(torch.zeros(2, 8, 8), torch.zeros(2, 8, 8)),
    "evaluate": lambda: xcam.evaluate(
        Twice(),
        [(IMAGES, torch.tensor([0, 1]))],
        {"named": xcam.get_method("gradcam")(layer="features.3")},
        ["complexity"],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_warnings_point_at_the_line_of_the_caller(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CALLS[name]()
    ours = [warning for warning in caught if issubclass(warning.category, xcam.XcamWarning)]
    lines, first = inspect.getsourcelines(CALLS[name])
    assert ours
    for warning in ours:
        assert Path(warning.filename) == Path(__file__)
        assert first <= warning.lineno < first + len(lines)
