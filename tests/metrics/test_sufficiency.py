"""Sufficiency: by hand from pairs of images, one of which may be the other."""

import pytest
import torch
from by_hand import explained, seeded
from torch import nn

from xcam.metrics import Sufficiency

METRIC = Sufficiency(n_segments=4)


class First(nn.Module):
    """Logits that are the first pixels of the image."""

    def forward(self, images):
        return images[:, 0, 0, :3]


def measure(places, classes):
    """The result for maps whose peaks lie in cells 0 to 3, and images of these classes."""
    maps, images = torch.zeros(len(places), 4, 4), torch.zeros(len(places), 1, 4, 4)
    for row, (place, label) in enumerate(zip(places, classes, strict=True)):
        maps[row, 2 * (place // 2), 2 * (place % 2)] = 1
        images[row, 0, 0, label] = 1
    rows = METRIC.score(First(), images, explained(maps, [0] * len(places)))
    assert rows.shape == (len(places), 4, 3)
    return float(METRIC.finish(rows.double().mean(0)))


def by_hand(places, classes):
    pairs = list(zip(places, classes, strict=True))
    shares = []
    for place, label in pairs:
        same = [other for at, other in pairs if at == place]
        shares.append(same.count(label) / len(same))
    return sum(shares) / len(shares)


def test_explanations_that_tell_the_class_are_sufficient():
    assert measure([0, 0, 1, 3, 3], [2, 2, 0, 1, 1]) == pytest.approx(1)
    assert measure([2] * 6, [0, 0, 1, 1, 2, 2]) == 1 / 3
    assert measure([2], [1]) == 1


def test_result_matches_a_plain_loop():
    draws = (seeded(2, 40) * 2.999).long()
    places, classes = draws.tolist()
    assert abs(measure(places, classes) - by_hand(places, classes)) < 1e-12


@pytest.mark.filterwarnings("ignore:image .. the map is flat")
def test_single_logit_is_for_its_class_if_positive():
    rows = METRIC.score(
        nn.Flatten(),
        torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1),
        explained(torch.ones(2, 1, 1), [0, 0]),
    )
    assert rows.flatten(1).tolist() == [[1, 0], [0, 1]]
