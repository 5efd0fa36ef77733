"""ROAD: a loop with a dense solve, both orders, everything removed, ties and noise."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from by_hand import explained, seeded
from nets import unchanged
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.engine.forward import run_settings
from xcam.errors import ModelOutputError
from xcam.metrics import ROAD, ROADLeRF, ROADMoRF
from xcam.metrics.removal.imputation import impute
from xcam.models import Normalized
from xcam.models.toy import SmallCNN

IMAGES = seeded(3, 3, 12, 9)
MAPS = seeded(3, 12, 9, seed=1) - 0.5
CLASSES = [4, 0, 2]
NORMALISED = Normalized(SmallCNN(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
FRACTIONS = (0.1, 0.5, 0.9)


class Keeps(nn.Module):
    """Two logits of an image's mean, and every image that it was given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images.clone())
        mean = images.mean((1, 2, 3))
        return torch.stack([mean, -mean], 1)


def scores(metric, model=NORMALISED, images=IMAGES, maps=MAPS, classes=CLASSES):
    return metric.score(model, images, explained(maps, classes))


def imputed(image, gone):
    """The picture (C, H, W) with these (row, column) set to their neighbours' weighted mean."""
    _, height, width = image.shape
    place = {at: n for n, at in enumerate(gone)}
    system, right = np.eye(len(gone)), np.zeros((len(gone), len(image)))
    for (y, x), n in place.items():
        around = {
            (y + dy, x + dx): 1 if dy and dx else 2
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if (dy or dx) and 0 <= y + dy < height and 0 <= x + dx < width
        }
        for at, weight in around.items():
            share = weight / sum(around.values())
            if at in place:
                system[n, place[at]] -= share
            else:
                right[n] += share * image[:, at[0], at[1]].double().numpy()
    filled = image.clone()
    for (y, x), color in zip(gone, np.linalg.solve(system, right), strict=True):
        filled[:, y, x] = torch.from_numpy(color)
    return filled


@pytest.mark.parametrize(("tolerance", "allowed"), [(1e-5, 2e-4), (1e-6, 2e-6)])
@pytest.mark.parametrize(("metric", "sign"), [(ROADMoRF, 1), (ROADLeRF, -1)])
def test_scores_match_a_loop_with_a_dense_solver(metric, sign, tolerance, allowed, monkeypatch):
    """To rounding; at the solver's own tolerance, to what it leaves of 1e-5 of the contrast."""
    monkeypatch.setattr("xcam.metrics.removal.road.impute", partial(impute, tolerance=tolerance))
    found = scores(metric(fractions=FRACTIONS, seed=5))
    noise = 0.01 * torch.randn(3, 12, 9, generator=torch.Generator().manual_seed(5))
    for i, target in enumerate(CLASSES):
        order = (-sign * MAPS[i]).flatten().argsort().tolist()
        for j, fraction in enumerate(FRACTIONS):
            gone = [divmod(n, 9) for n in order[: math.floor(fraction * 108)]]
            picture = imputed(IMAGES[i], gone)
            for y, x in gone:
                picture[:, y, x] += noise[:, y, x]
            with torch.no_grad():
                p = NORMALISED(picture[None])[0].softmax(0)
            assert_close(found[i, j, 0], p[target], atol=allowed, rtol=0)
            assert found[i, j, 1] == (p.argmax() == target)


def test_both_orders_in_one():
    both, morf, lerf = (metric(fractions=FRACTIONS) for metric in (ROAD, ROADMoRF, ROADLeRF))
    found = scores(both)
    assert found.shape == (3, 2, 3, 2)
    assert_close(found[:, 0], scores(morf), atol=1e-6, rtol=0)
    assert_close(found[:, 1], scores(lerf), atol=1e-6, rtol=0)
    assert_close(scores(lerf, maps=-MAPS), scores(morf), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("output", "place"), [("prob", 0), ("accuracy", 1)])
def test_results_are_means_over_fractions(output, place):
    mean = seeded(7, 2, 3, 2)
    settings = {"fractions": FRACTIONS, "output": output}
    for metric, order in ((ROADMoRF(**settings), 0), (ROADLeRF(**settings), 1)):
        assert_close(metric.finish(mean[:, order]), mean[:, order, :, place].mean(1))
    both = ROAD(**settings)
    half = (mean[:, 1, :, place] - mean[:, 0, :, place]) / 2
    assert_close(both.finish(mean), half.mean(1))
    assert_close(both.curve(mean)[0], torch.tensor(FRACTIONS))
    assert_close(both.curve(mean)[1], half)


def test_nothing_and_everything_removed():
    net = Keeps()
    scores(ROADMoRF(fractions=(0.0, 1.0), noise=0.0), net, classes=[0, 1, 0])
    clean, gone = torch.cat(net.seen).unflatten(0, (3, 2)).unbind(1)
    assert clean.equal(IMAGES)
    assert_close(gone, IMAGES.mean((2, 3), keepdim=True).expand_as(gone))


def test_noise_is_added_where_pixels_are_removed():
    net = Keeps()
    scores(ROADMoRF(fractions=(0.5,), noise=0.3), net, classes=[0, 1, 0])
    scores(ROADMoRF(fractions=(0.5,), noise=0.0), net, classes=[0, 1, 0])
    noisy, plain = torch.cat(net.seen).chunk(2)
    kept = MAPS.le(MAPS.flatten(1).median(1).values[:, None, None])
    assert noisy.eq(IMAGES).all(1).equal(kept)
    noise = torch.randn(3, 12, 9, generator=torch.Generator().manual_seed(0))
    assert_close(noisy - plain, 0.3 * noise * ~kept[:, None], atol=1e-6, rtol=0)


def test_noise_has_the_units_of_its_space():
    inside, outside = (
        scores(ROADMoRF(fractions=FRACTIONS, space=space, noise=0.0))
        for space in ("normalized", "input")
    )
    assert_close(inside, outside, atol=1e-4, rtol=0)
    inside, outside = (
        scores(ROADMoRF(fractions=FRACTIONS, space=space, noise=0.1))
        for space in ("normalized", "input")
    )
    assert (inside - outside)[..., 0].abs().max() > 1e-3


def test_equal_values_go_in_a_fixed_random_order():
    flat = torch.zeros_like(MAPS)
    orders = []
    for seed in (0, 0, 1):
        net = Keeps()
        scores(ROADMoRF(fractions=(0.5,), noise=0.1, seed=seed), net, maps=flat, classes=[0] * 3)
        gone = (torch.cat(net.seen) != IMAGES).all(1)
        assert gone.sum((1, 2)).tolist() == [54] * 3
        assert gone[0].equal(gone[2])
        assert 10 < gone[0, :6].sum() < 44  # of which a scan would take all 54
        orders.append(gone[0])
    assert orders[0].equal(orders[1])
    assert not orders[0].equal(orders[2])


def test_map_of_the_evidence_scores_high_and_its_negative_low():
    """A net that sees one square only: the map of the square loses it first, or last."""
    images = torch.zeros(4, 3, 16, 16)
    maps = seeded(4, 16, 16) * 0.1
    for i in range(4):
        images[i, :, 2 * i : 2 * i + 5, 3:8] = 1
        maps[i, 2 * i : 2 * i + 5, 3:8] += 1

    class Square(nn.Module):
        def forward(self, images):
            score = 20 * (images.mean((1, 2, 3)) - 0.05)
            return torch.stack([score, -score], 1)

    oracle, chance, worst = (
        ROAD().finish(scores(ROAD(), Square(), images, m, [0] * 4).mean(0))
        for m in (maps, seeded(4, 16, 16, seed=3), -maps)
    )
    assert oracle > 0.4
    assert abs(chance) < 0.15
    assert worst < -0.4


@pytest.mark.parametrize("size", [1, 4, 100])
def test_scores_are_the_same_for_any_batch_size(size):
    metric = ROAD(fractions=FRACTIONS)
    whole = scores(metric)
    with run_settings(batch_size=size):
        chunked = scores(metric)
    assert_close(chunked, whole, atol=1e-5, rtol=0)
    assert chunked[..., 1].equal(whole[..., 1])
    alone = scores(metric, images=IMAGES[1:2], maps=MAPS[1:2], classes=CLASSES[1:2])
    assert_close(alone, whole[1:2], atol=1e-5, rtol=0)


def test_traces_and_registry():
    for name, cls in (("road", ROAD), ("road_morf", ROADMoRF), ("road_lerf", ROADLeRF)):
        assert xcam.get_metric(name) is cls
        with unchanged(NORMALISED, IMAGES, MAPS):
            scores(cls(fractions=[0.3]))
        assert "fractions=(0.3,)" in repr(cls(fractions=[0.3]))


def test_model_with_nan_outputs_is_refused_with_the_image_number():
    class Broken(nn.Module):
        def forward(self, images):
            return torch.full((len(images), 5), torch.nan)

    with pytest.raises(ModelOutputError, match="image 0 is not finite"):
        scores(ROAD(), Broken())


@pytest.mark.parametrize("metric", [ROAD, ROADMoRF, ROADLeRF])
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"fractions": ()}, r"at least one number in \[0, 1\], got none"),
        ({"fractions": (0.5, 10)}, r"in \[0, 1\], such as .*got \(0.5, 10\)"),
        ({"output": "logit"}, "output must be 'prob' or 'accuracy', got 'logit'"),
        ({"space": "pixel"}, "space must be 'input' or 'normalized', got 'pixel'"),
        ({"noise": -0.1}, "of at least 0, such as 0.01, got -0.1"),
        ({"noise": math.nan}, "of at least 0, such as 0.01, got nan"),
    ],
)
def test_bad_settings(metric, values, sentence):
    with pytest.raises(ValueError, match=sentence):
        metric(**values)
    with pytest.raises(TypeError, match=r"each a finite number in \[0, 1\], such as .*got 0.5"):
        metric(fractions=0.5)
