"""The order of equal values: in scan order by default, or at random, where a flat map is chance."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from by_hand import explained, seeded
from torch.testing import assert_close

import xcam
from xcam.metrics import (
    IROF,
    ROAD,
    Deletion,
    Insertion,
    NegativePerturbation,
    PixelFlipping,
    PositivePerturbation,
    RemoveAndClassify,
    ROADLeRF,
    ROADMoRF,
    Selectivity,
)
from xcam.metrics.removal.pixels import draw_order, rank_values
from xcam.models.toy import SmallCNN

NET = SmallCNN().eval()
IMAGES = seeded(5, 3, 8, 8)
IMAGES[:, :, :4] += 1  # what is on top counts
CLASSES = [0, 1, 2, 3, 4]
ZEROS = explained(torch.zeros(5, 8, 8), CLASSES)
# Flat but for rounding, as a flat map is after a resize.
RESIZED = explained(0.3 + 3e-8 * (seeded(5, 8, 8) > 0.5), CLASSES)
METRICS = [
    Insertion(step=16),
    Deletion(step=16),
    PixelFlipping(step=16),
    IROF(segments="grid", n_segments=8),
    Selectivity(unit="patch", patch=2, steps=4),
    Selectivity(unit="pixel", steps=4),
    PositivePerturbation((0.3, 0.6)),
    NegativePerturbation((0.3, 0.6)),
    RemoveAndClassify((0.3, 0.6)),
    ROAD((0.5,), output="prob"),
    ROADMoRF((0.3, 0.6), output="prob"),
    ROADLeRF((0.6,), output="prob"),
]
LABELS = [f"{metric.spec.name}-{number}" for number, metric in enumerate(METRICS)]
each = pytest.mark.parametrize("metric", METRICS, ids=LABELS)


def with_ties(metric, ties="random", seed=0):
    return dataclasses.replace(metric, ties=ties, seed=seed)


def mean(values):
    """The mean over draws and its standard error, a point of the mean curve each."""
    stacked = torch.stack(values).double().mean(1)
    return stacked.mean(0), stacked.std(0) / len(values) ** 0.5


@functools.cache
def random_maps():
    return [xcam.explain(NET, IMAGES, CLASSES, "random", seed=seed) for seed in range(20)]


def test_equal_values_follow_the_given_order():
    maps = torch.tensor([[[1.0, 2.0], [1.0, 1.0]]])
    assert rank_values(maps, torch.tensor([[3, 2, 1, 0]])).tolist() == [[[3, 0], [2, 1]]]
    assert draw_order(IMAGES, 64, "scan", 0) is None


def test_reverse_order_is_a_flipped_ascending_sort():
    """As RISE's code has it, with a stable sort: half of the map is zero."""
    maps = (seeded(2, 6, 7) - 0.5).relu()
    ascending = np.argsort(maps.flatten(1).numpy(), axis=1, kind="stable")[:, ::-1].copy()
    order = draw_order(IMAGES[:2], 42, "reverse", 0)
    ranks = rank_values(maps, order).flatten(1)
    assert torch.equal(ranks.gather(1, torch.from_numpy(ascending)), torch.arange(42).expand(2, -1))
    explanation = explained(torch.nn.functional.pad(maps, (1, 0, 2, 0)), [0, 1])
    scan, reverse = (
        Deletion(step=3, ties=ties).score(NET, IMAGES[:2], explanation)
        for ties in ("scan", "reverse")
    )
    turned = Deletion(step=3).score(Turned(), IMAGES[:2].flip(2, 3), explanation_turned(maps))
    assert_close(reverse, turned, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(scan, reverse)


class Turned(torch.nn.Module):
    """Turns images by 180 degrees, so that scan order runs backwards."""

    def forward(self, images):
        return NET(images.flip(2, 3))


def explanation_turned(maps):
    padded = torch.nn.functional.pad(maps, (1, 0, 2, 0))
    return explained(padded.flip(1, 2), [0, 1])


@each
def test_random_ties_of_a_flat_map_are_a_random_map_on_average(metric):
    found, one = mean([with_ties(metric, seed=s).score(NET, IMAGES, ZEROS) for s in range(20)])
    chance, other = mean([metric.score(NET, IMAGES, maps) for maps in random_maps()])
    assert bool(
        ((found - chance).abs() <= 4.5 * (one.square() + other.square()).sqrt() + 1e-6).all()
    )


@each
def test_rounding_is_no_order(metric):
    random = with_ties(metric, seed=7)
    flat = random.score(NET, IMAGES, ZEROS)
    assert_close(random.score(NET, IMAGES, RESIZED), flat, rtol=0, atol=0)


@each
def test_random_order_depends_on_seed_and_image_alone(metric):
    random = with_ties(metric, seed=3)
    found = random.score(NET, IMAGES, ZEROS)
    backwards = torch.arange(4, -1, -1)
    turned = random.score(NET, IMAGES[backwards], ZEROS[backwards])
    assert_close(turned[backwards], found, rtol=0, atol=1e-5)
    alone = random.score(NET, IMAGES[2:3], ZEROS[2])
    assert_close(alone[0], found[2], rtol=0, atol=1e-5)


@each
def test_ties_are_random_or_in_scan_order_where_values_differ_not_at_all(metric):
    """Values that differ have one order, whatever the setting."""
    maps = explained(seeded(5, 8, 8, seed=2), CLASSES)
    first, second = (
        with_ties(metric, ties).score(NET, IMAGES, maps) for ties in ("scan", "random")
    )
    assert_close(first, second, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:image .. the map is flat")
def test_scan_order_flatters_and_a_random_one_does_not():
    """The object is on top, where scan order begins."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    net[1].weight.data.zero_()
    net[1].weight.data[0].view(3, 8, 8)[:, :4] = 0.02
    net[1].bias.data.zero_()
    maps = explained(torch.zeros(5, 8, 8), [0] * 5)
    scores = {}
    for ties in ("scan", "random"):
        metric = Insertion(step=8, fill="zero", space="input", ties=ties)
        scores[ties] = float(metric(net, IMAGES, maps))
    chance = xcam.explain(net, IMAGES, 0, "random")
    control = float(Insertion(step=8, fill="zero", space="input")(net, IMAGES, chance))
    assert scores["scan"] > control + 0.05
    assert scores["random"] == pytest.approx(control, abs=0.02)


@pytest.mark.filterwarnings("ignore:image .. the map is flat")
def test_elements_and_recomputed_maps_take_the_setting():
    metric = Selectivity(unit="element", steps=4, ties="random")
    explanation = xcam.explain(NET, IMAGES, CLASSES, "saliency")
    raw = dataclasses.replace(explanation, raw=torch.zeros_like(explanation.raw))
    first = metric.score(NET, IMAGES, raw)
    assert not torch.equal(first, dataclasses.replace(metric, ties="scan").score(NET, IMAGES, raw))
    again = dataclasses.replace(metric, recompute=True).score(NET, IMAGES, explanation)
    assert_close(again[:, 0], first[:, 0])
