"""Completeness: Integrated Gradients keep it, maps of another scale do not."""

import torch
from by_hand import explained, seeded
from nets import unchanged

import xcam
from xcam.metrics import Completeness
from xcam.models import Normalized
from xcam.models.toy import LinearNet, SmallCNN

IMAGES = seeded(3, 3, 8, 8)
CLASSES = [3, 1, 0]
NET = Normalized(SmallCNN(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))


def scores(metric, net, method="integrated_gradients", **settings):
    with unchanged(net, IMAGES):
        explanation = xcam.explain(net, IMAGES, CLASSES, method, **settings)
        return metric.score(net, IMAGES, explanation).tolist()


def test_integrated_gradients_are_complete():
    assert scores(Completeness(), NET, n_steps=100) == [1, 1, 1]
    assert scores(Completeness(), NET, reduce="abs_max", n_steps=100) == [1, 1, 1]  # reads `raw`
    assert scores(Completeness(), NET, "saliency") == [0, 0, 0]
    assert scores(Completeness(1e-4), LinearNet((3, 8, 8)), "input_x_gradient") == [1, 1, 1]


def test_baseline_output_and_space_must_be_those_of_the_map():
    settings = {"baseline": "mean", "output": "prob", "space": "normalized", "n_steps": 100}
    same = Completeness(fill="mean", output="prob", space="normalized")
    assert scores(same, NET, **settings) == [1, 1, 1]
    assert 0 in scores(Completeness(), NET, **settings)


def test_tolerance_is_a_share_of_the_difference():
    net = LinearNet((3, 8, 8))
    rise = (net(IMAGES) - net(torch.zeros_like(IMAGES)))[range(3), CLASSES].detach()
    for factor, kept in [(1.04, 1), (1.06, 0), (0.96, 1), (0.94, 0), (-1, 0)]:
        maps = (factor * rise / 64)[:, None, None].expand(-1, 8, 8)
        found = Completeness().score(net, IMAGES, explained(maps, CLASSES))
        assert found.tolist() == [kept] * 3
