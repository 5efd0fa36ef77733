"""Monotonicity: nets of positive weights keep it, a single negative one breaks it."""

import pytest
import torch
from by_hand import curve_of, edited, explained, seeded

from xcam.metrics import Monotonicity
from xcam.models.toy import LinearNet, SmallCNN

IMAGES = seeded(2, 3, 8, 9)
MAPS = seeded(2, 8, 9, seed=1) - 0.5
CLASSES = [3, 1]


def scores(metric, net, maps=MAPS):
    return metric.score(net, IMAGES, explained(maps, CLASSES)).tolist()


def test_positive_weights_rise_whatever_the_map():
    net = LinearNet((3, 8, 9))
    net.fc.weight.data.abs_()
    assert scores(Monotonicity(step=1, output="logit"), net) == [1, 1]
    net.fc.weight.data[3, 40] *= -1  # one step falls for the first image
    assert scores(Monotonicity(step=72, output="logit"), net) == [1, 1]
    net.fc.weight.data[3].view(3, 72)[:, 40] = -1
    assert scores(Monotonicity(step=1, output="logit"), net) == [0, 1]
    share = Monotonicity(step=1, output="logit", every_step=False)
    assert scores(share, net) == pytest.approx([71 / 72, 1])


@pytest.mark.parametrize("step", [4, 10])
def test_steps_match_a_plain_loop(step):
    net = SmallCNN()
    found = scores(Monotonicity(step=step, every_step=False), net)
    for i, target in enumerate(CLASSES):
        pictures = edited(torch.zeros_like(IMAGES[i]), IMAGES[i], -MAPS[i], step)
        rises = curve_of(net, pictures, target).diff() >= 0
        assert found[i] == pytest.approx(float(rises.float().mean()))
        assert found[i] < 1


def test_model_that_ignores_pixels_never_falls():
    blind = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(216, 5))
    torch.nn.init.zeros_(blind[1].weight)
    assert scores(Monotonicity(), blind) == [1, 1]
