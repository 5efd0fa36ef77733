"""Positive and negative perturbation: whether the class survives what a loop removes."""

import pytest
import torch
from by_hand import explained, seeded
from nets import unchanged
from torch import nn
from torch.testing import assert_close

from xcam.engine.forward import run_settings
from xcam.metrics import NegativePerturbation, PositivePerturbation
from xcam.models import Normalized
from xcam.models.toy import SmallCNN

IMAGES = seeded(6, 3, 10, 10)
MAPS = seeded(6, 10, 10, seed=1) - 0.5
NET = Normalized(SmallCNN(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
CLASSES = NET(IMAGES).argmax(1)
METRICS = [PositivePerturbation(), NegativePerturbation()]


class Bright(nn.Module):
    """Class 1 if the pixels sum up to more than `most`, else class 0."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def forward(self, images):
        total = images.sum((1, 2, 3))
        return torch.stack([torch.zeros_like(total), total - self.most], 1)


def hits(metric, model=NET, images=IMAGES, maps=MAPS, classes=CLASSES):
    return metric.score(model, images, explained(maps, classes))


def test_closed_form():
    images = torch.ones(1, 1, 10, 10)  # decided for class 1 while more than 55 pixels are left
    maps = torch.arange(100.0).view(1, 10, 10)
    for metric in METRICS:
        found = hits(metric, Bright(55.5), images, maps, [1])
        assert found.tolist() == [[1, 1, 1, 1, 0, 0, 0, 0, 0]]
        assert metric.finish(found).tolist() == pytest.approx([4 / 9])
    images[0, 0, 5:] = 3  # the lower half of the map weighs 50, the upper one 150
    assert hits(METRICS[0], Bright(119.5), images, maps, [1]).tolist() == [[1, 1] + [0] * 7]
    assert hits(METRICS[1], Bright(119.5), images, maps, [1]).tolist() == [[1] * 6 + [0] * 3]


@pytest.mark.parametrize(("metric", "sign"), [(METRICS[0], 1), (METRICS[1], -1)])
def test_hits_match_an_inplace_loop(metric, sign):
    found = hits(metric)
    assert 0 < found.mean() < 1
    for i, target in enumerate(CLASSES):
        order = sorted(range(100), key=lambda j, i=i: -sign * float(MAPS[i].flatten()[j]))
        for k in range(1, 10):
            picture = IMAGES[i].clone()
            for place in order[: 10 * k]:
                picture[:, place // 10, place % 10] = 0
            assert found[i, k - 1] == float(NET(picture[None])[0].argmax() == target)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [1, 4, 100])
def test_chunks_flip_no_decision(metric, size):
    net = SmallCNN()
    nn.init.zeros_(net.classifier.weight[1:])
    with torch.no_grad():  # classes 1 and 2 are equal up to rounding
        net.classifier.weight[2] = net.classifier.weight[1] * (1 + 1e-7)
        net.classifier.bias[:] = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0])
    whole = hits(metric, net, classes=[1, 2] * 3)
    with run_settings(batch_size=size):
        assert hits(metric, net, classes=[1, 2] * 3).equal(whole)


@pytest.mark.parametrize("metric", METRICS)
def test_result_and_traces(metric):
    with unchanged(NET, IMAGES, MAPS):
        found = hits(metric)
    assert found.shape == (6, 9)
    assert_close(metric.finish(found.mean(0)), found.mean())
    fractions, accuracy = metric.curve(found.mean(0))
    assert_close(fractions, torch.linspace(0.1, 0.9, 9))
    assert accuracy.equal(found.mean(0))


@pytest.mark.parametrize("metric", [PositivePerturbation, NegativePerturbation])
def test_bad_settings(metric):
    with pytest.raises(
        ValueError, match=r"fractions must be a tuple, each a finite number in \(0, 1"
    ):
        metric(fractions=(0.5, 1.5))
    with pytest.raises(ValueError, match="fractions must ascend between 0 and 1"):
        metric(fractions=(0.5, 0.1))
