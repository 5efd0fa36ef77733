"""Gini index and entropy: closed forms, and the sums written out."""

import math

import pytest
import torch
from by_hand import explained, seeded
from torch.testing import assert_close

from xcam.metrics import Entropy, Sparseness

SIZE = (6, 5)
PIXELS = 30
IMAGES = torch.zeros(1, 3, *SIZE)


def scored(metric, values):
    maps = torch.as_tensor(values).float().view(-1, *SIZE)
    images = IMAGES.expand(len(maps), -1, -1, -1)
    return metric.score(None, images, explained(maps, [0] * len(maps)))


def one_hot(value=1.0):
    maps = torch.zeros(PIXELS)
    maps[17] = value
    return maps


class TestClosedForms:
    @pytest.mark.parametrize("value", [1.0, -3.0, 1e-6, 1e6])
    def test_one_pixel(self, value):
        assert scored(Sparseness(), one_hot(value)).item() == pytest.approx((PIXELS - 1) / PIXELS)
        assert scored(Entropy(), one_hot(value)).item() == 0

    @pytest.mark.parametrize("value", [1.0, -3.0, 1e-6, 1e6])
    def test_all_pixels_alike(self, value):
        flat = torch.full((PIXELS,), value)
        assert scored(Sparseness(), flat).item() == pytest.approx(0, abs=1e-6)
        assert scored(Entropy(), flat).item() == pytest.approx(math.log(PIXELS), rel=1e-6)

    @pytest.mark.parametrize("count", [2, 3, 15, 29])
    def test_some_pixels_alike(self, count):
        maps = torch.zeros(PIXELS)
        maps[:count] = 2.0
        assert scored(Sparseness(), maps).item() == pytest.approx(1 - count / PIXELS, rel=1e-5)
        assert scored(Entropy(), maps).item() == pytest.approx(math.log(count), rel=1e-6)

    def test_ramp(self):
        ramp = torch.arange(1.0, PIXELS + 1)[seeded(PIXELS).argsort()]
        wanted = (PIXELS - 1) / (3 * PIXELS)  # of 1, 2, …, n
        assert scored(Sparseness(), ramp).item() == pytest.approx(wanted, rel=1e-5)

    def test_map_of_zeros_says_nothing(self):
        assert scored(Sparseness(), torch.zeros(PIXELS)).item() == 0
        assert scored(Entropy(), torch.zeros(PIXELS)).item() == pytest.approx(math.log(PIXELS))


class TestWrittenOut:
    values = seeded(3, PIXELS) - 0.3

    def test_gini_is_the_mean_difference(self):
        for row, found in zip(self.values.abs(), scored(Sparseness(), self.values), strict=True):
            differences = (row[:, None] - row[None]).abs().mean()
            assert found.item() == pytest.approx(float(differences / (2 * row.mean())), rel=1e-5)

    def test_sparseness_and_entropy_match_the_sums_of_quantus(self):
        for row, gini, entropy in zip(
            self.values.abs().double(),
            scored(Sparseness(), self.values),
            scored(Entropy(), self.values),
            strict=True,
        ):
            ordered = sorted(x + 1e-7 for x in row.tolist())
            weighted = sum((2 * i - PIXELS - 1) * x for i, x in enumerate(ordered, start=1))
            assert gini.item() == pytest.approx(weighted / (PIXELS * sum(ordered)), abs=1e-5)
            shares = [x / sum(row.tolist()) for x in row.tolist()]
            total = -sum(q * math.log(q + 1e-12) for q in shares)
            assert entropy.item() == pytest.approx(total, abs=1e-5)

    @pytest.mark.parametrize("metric", [Sparseness(), Entropy()])
    def test_scale_sign_and_order_change_nothing(self, metric):
        whole = scored(metric, self.values)
        assert_close(scored(metric, -5 * self.values), whole)
        assert_close(scored(metric, self.values.flip(1)), whole)

    @pytest.mark.parametrize("metric", [Sparseness(), Entropy()])
    def test_large_maps(self, metric):
        maps = seeded(1, 1000, 1000)
        images = torch.zeros(1, 3, 1000, 1000)
        found = metric.score(None, images, explained(maps, [0])).item()
        lost = math.log(2) - 0.5  # E[2u ln 2u] of a uniform u
        wanted = 1 / 3 if isinstance(metric, Sparseness) else math.log(1e6) - lost
        assert found == pytest.approx(wanted, abs=2e-3)


@pytest.mark.parametrize("metric", [Sparseness(), Entropy()])
def test_refuses_maps_of_another_size(metric):
    with pytest.raises(ValueError, match=r"maps must be \(1, 6, 5\)"):
        metric.score(None, IMAGES, explained(torch.zeros(1, 5, 6), [0]))
