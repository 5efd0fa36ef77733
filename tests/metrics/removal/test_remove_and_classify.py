"""Remove and classify: hits of the map's and of a random erasure, and their ratio."""

import math

import pytest
import torch
from by_hand import explained, seeded
from nets import unchanged
from torch.testing import assert_close

import xcam
from xcam.engine.forward import run_settings
from xcam.metrics import RemoveAndClassify
from xcam.models import Normalized
from xcam.models.toy import SmallCNN

IMAGES = seeded(8, 3, 10, 10)
MAPS = seeded(8, 10, 10, seed=1) - 0.5
NET = Normalized(SmallCNN(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
CLASSES = NET(IMAGES).argmax(1)


def hits(metric=None, maps=MAPS):
    return (metric or RemoveAndClassify()).score(NET, IMAGES, explained(maps, CLASSES))


def erased(order, k):
    """Whether each image is recognised without the first k of `order` of its normalised pixels."""
    pictures = (IMAGES - NET.mean) / NET.std
    for place in order[:k]:
        pictures[:, :, place // 10, place % 10] = 0
    return (NET.model(pictures).argmax(1) == CLASSES).float()


def chance(seed=0):
    """The place of each pixel in the random order, (10, 10)."""
    return torch.randperm(100, generator=torch.Generator().manual_seed(seed)).view(10, 10)


def test_hits_match_an_inplace_loop():
    found = hits(maps=MAPS[:1].expand_as(MAPS))
    for row, scores in enumerate((MAPS[0], -chance())):
        order = scores.flatten().argsort(descending=True).tolist()
        for point, k in enumerate((10, 30, 50, 70, 90)):
            assert found[:, row, point].equal(erased(order, k))
    assert 0 < found.mean() < 1


def test_map_of_the_random_order_scores_one():
    metric = RemoveAndClassify(seed=5, fractions=(0.1, 0.3))
    found = hits(metric, -chance(5).expand_as(MAPS))
    assert found[:, 0].equal(found[:, 1])
    assert found.mean(0)[1].min() > 0
    assert metric.finish(found.mean(0)) == 1


@pytest.mark.parametrize("seed", range(4))
def test_random_maps_are_not_the_yardstick_itself(seed):
    """Whichever seeds meet: else the control would be at one by identity, not by measurement."""
    maps = xcam.explain(NET, IMAGES, method="random", seed=seed).maps
    places = torch.stack([chance(other).flatten() for other in range(4)])
    alike = torch.corrcoef(torch.cat([maps.flatten(1), places.float()]))[:8, 8:]
    assert alike.abs().max() < 0.5
    found = hits(RemoveAndClassify(seed=seed), maps)
    assert not found[:, 0].equal(found[:, 1])


def test_ratio_of_counts_over_the_data_set():
    metric = RemoveAndClassify(fractions=(0.1, 0.5, 0.9))
    mean = torch.tensor([[0.4, 0.3, 0.1], [0.8, 0.4, 0.2]])
    assert_close(metric.finish(mean), torch.tensor((0.5 + 0.75 + 0.5) / 3))
    fractions, ratios = metric.curve(mean)
    assert_close(fractions, torch.tensor([0, 0.1, 0.5, 0.9, 1]))
    assert_close(ratios, torch.tensor([1, 0.5, 0.75, 0.5, 1]))
    many = torch.stack([mean, mean / 2])
    assert_close(metric.finish(many), metric.finish(mean).expand(2))
    assert metric.curve(many)[1].shape == (2, 5)


def test_points_without_a_ratio():
    metric = RemoveAndClassify(fractions=(0.1, 0.5))
    assert metric.finish(torch.tensor([[0.5, 0.1], [1.0, 0.0]])) == 0.5
    assert math.isnan(metric.finish(torch.tensor([[0.5, 0.1], [0.0, 0.0]])))


@pytest.mark.parametrize("size", [1, 3, 100])
def test_hits_are_the_same_for_any_batch_size(size):
    whole = hits()
    with run_settings(batch_size=size):
        assert hits().equal(whole)


def test_random_order_depends_only_on_the_seed():
    with unchanged(NET, IMAGES, MAPS):
        assert hits().equal(hits())
    found = hits()
    assert found[3:4].equal(
        RemoveAndClassify().score(NET, IMAGES[3:4], explained(MAPS[3:4], CLASSES[3:4]))
    )
    others = [hits(RemoveAndClassify(seed=seed)) for seed in range(1, 4)]
    assert any(not other[:, 1].equal(found[:, 1]) for other in others)
    assert all(other[:, 0].equal(found[:, 0]) for other in others)


def test_bad_settings():
    with pytest.raises(ValueError, match="fractions must ascend between 0 and 1"):
        RemoveAndClassify(fractions=(0.9, 0.1))
