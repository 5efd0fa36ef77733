"""Planted cues: without what decides the class nothing can be learned, and with it alone all can.

Classes differ in texture or color alone, inside silhouettes that are alike and anywhere, so that
a hole tells nothing: of six such pairs of data sets with textures, 600 of 1,200 test images were
classified right without the cue.
"""

import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils.data import Dataset

import xcam
from xcam.data import planted_cues
from xcam.models.toy import GapNet

TEST_IMAGES, CHANCE = 200, 0.5
FRACTIONS = (0.1, 0.3)  # at or above the area of the cue


class Cues(Dataset):
    """Planted cues in memory; their masks are found by id."""

    masks = {}  # noqa: RUF012

    def __init__(self, name, count, mode, seed):
        colors = torch.tensor([[0.9, 0.2, 0.1], [0.1, 0.2, 0.9]])
        data = planted_cues(
            count, 32, 2, mode, seed, distractors=0, extent=(0.25, 0.33),
            colors=colors if mode == "color" else None,
        )  # fmt: skip
        self.items = [(image, label) for image, label, _ in data]
        self.ids = [f"{mode} {name} {index}" for index in range(count)]
        self.labels = [label for _, label in self.items]
        self.masks.update(zip(self.ids, (mask for *_, mask in data), strict=True))
        assert max(float(mask.float().mean()) for *_, mask in data) <= FRACTIONS[0]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def oracle(images, ids, target):
    return torch.stack([Cues.masks[name].float() for name in ids])


def make_net():
    return nn.Sequential(
        nn.Conv2d(3, 12, 5, stride=2), nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveMaxPool2d(1),
        nn.Flatten(), nn.Linear(12, 2),
    )  # fmt: skip


@pytest.fixture(scope="module", params=["color", "texture"])
def table(request):
    train = Cues("train", 160, request.param, seed=100)
    test = Cues("test", TEST_IMAGES, request.param, seed=200)
    results = xcam.roar(
        make_net,
        train,
        test,
        GapNet(num_classes=2),
        methods=(),
        maps={"oracle": oracle},
        fit={"epochs": 6, "batch_size": 24, "optimizer": {"name": "Adam", "lr": 0.02}},
        fractions=FRACTIONS,
        mode=("remove", "keep"),
        repeats=1,
        parallel=5,
    )
    return results.table().set_index(["method", "mode", "fraction"])["value"].sort_index()


def contains_chance(accuracy):
    """Whether the binomial 95 % interval of an accuracy contains chance."""
    correct = round(accuracy * TEST_IMAGES)
    interval = stats.binomtest(correct, TEST_IMAGES).proportion_ci(0.95, method="exact")
    return interval.low <= CHANCE <= interval.high


def test_with_everything_the_classes_are_learned(table):
    assert table["oracle", "remove", 0.0] > 0.85


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_without_the_cue_they_are_not(table, fraction):
    assert contains_chance(table["oracle", "remove", fraction])


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_without_random_pixels_they_are(table, fraction):
    assert not contains_chance(table["random", "remove", fraction])


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_keeping_the_cue_mirrors_it(table, fraction):
    assert not contains_chance(table["oracle", "keep", fraction])
    assert table["oracle", "keep", fraction] >= table["oracle", "remove", fraction] + 0.3


def test_without_everything_there_is_chance(table):
    assert contains_chance(table["oracle", "remove", 1.0])
