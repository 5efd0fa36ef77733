"""Correlations of removed pixels' values with what the score loses: linear nets, plain loops."""

import dataclasses

import numpy as np
import pytest
import torch
from by_hand import explained, seeded
from nets import unchanged
from scipy.stats import pearsonr
from torch.testing import assert_close

import xcam
from xcam.engine.forward import run_settings
from xcam.engine.shared import share_passes
from xcam.metrics import FaithfulnessCorrelation, FaithfulnessEstimate, SensitivityN
from xcam.metrics.removal.subsets import correlate_samples
from xcam.models import Normalized
from xcam.models.toy import LinearNet, SmallCNN

IMAGES = seeded(2, 3, 8, 9) + 0.1  # no pixel is black
MAPS = seeded(2, 8, 9, seed=1) - 0.5
CLASSES = [3, 1]
NET = Normalized(SmallCNN(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
CORRELATION = FaithfulnessCorrelation(size=5, n_samples=20)
SENSITIVITY = SensitivityN((0.05, 0.5), n_samples=20)
ESTIMATE = FaithfulnessEstimate(step=5)
ALL = pytest.mark.parametrize("metric", [CORRELATION, SENSITIVITY, ESTIMATE], ids=str)


def scores(metric, net=NET, maps=MAPS):
    return metric.score(net, IMAGES, explained(maps, CLASSES))


class Recorder(torch.nn.Module):
    """Keeps the images that it is given, one a row."""

    def __init__(self, net):
        super().__init__()
        self.net, self.images = net, []

    def forward(self, images):
        self.images.append(images.clone())
        return self.net(images)


@ALL
def test_linear_net_is_explained_by_its_products(metric):
    net = LinearNet((3, 8, 9))
    explanation = xcam.explain(net, IMAGES, CLASSES, "input_x_gradient")
    found = metric.score(net, IMAGES, explanation)
    assert_close(found, torch.ones_like(found), atol=1e-4, rtol=0)
    opposite = scores(metric, net, -3 * explanation.maps)
    assert_close(opposite, -torch.ones_like(found), atol=1e-4, rtol=0)


@ALL
@pytest.mark.filterwarnings("ignore:image .. the map is flat")
def test_nothing_to_correlate_counts_as_zero(metric):
    for flat in (0.0, 0.3):
        almost = flat + 3e-8 * flat * (MAPS > 0)  # but for rounding, as after a resize
        assert not scores(metric, maps=almost).any()
    blind = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(216, 5))
    torch.nn.init.zeros_(blind[1].weight)
    assert not scores(metric, blind).any()


@pytest.mark.parametrize(("metric", "sizes"), [(CORRELATION, [5]), (SENSITIVITY, [3, 36])])
def test_subsets_match_a_plain_loop(metric, sizes):
    net = Recorder(NET)
    found = scores(metric, net).view(2, -1)
    seen = torch.cat(net.images).view(2, 20, len(sizes), 3, 8, 9)
    for i, target in enumerate(CLASSES):
        clean = NET(IMAGES[i : i + 1])[0, target]
        for j, size in enumerate(sizes):
            removed = (seen[i, :, j] == 0).all(1)
            assert torch.where(removed[:, None], 0, IMAGES[i]).equal(seen[i, :, j])
            assert set(removed.flatten(1).sum(1).tolist()) == {size}
            assert len(removed.flatten(1).unique(dim=0)) == 20
            loss = clean - NET(seen[i, :, j])[:, target]
            sums = (removed * MAPS[i]).sum((1, 2))
            expected = pearsonr(sums.detach().numpy(), loss.detach().numpy()).statistic
            assert float(found[i, j]) == pytest.approx(expected, abs=1e-4)
    assert not torch.equal(seen[0] == 0, seen[1] == 0)


def test_parts_match_a_plain_loop():
    found = scores(ESTIMATE)
    for i, target in enumerate(CLASSES):
        order = sorted(range(72), key=lambda j, i=i: -float(MAPS[i].flatten()[j]))
        sums, losses = [], []
        for part in (order[k : k + 5] for k in range(0, 72, 5)):
            picture = IMAGES[i].clone().flatten(1)
            picture[:, part] = 0
            pair = NET(torch.stack([IMAGES[i], picture.view_as(IMAGES[i])]))[:, target].detach()
            losses.append(float(pair[0] - pair[1]))
            sums.append(float(MAPS[i].flatten()[part].sum()))
        assert float(found[i]) == pytest.approx(np.corrcoef(sums, losses)[0, 1], abs=1e-4)


def test_subsets_of_one_size_are_those_of_one_fraction():
    one = FaithfulnessCorrelation(size=0.5, n_samples=20)
    assert_close(scores(one), scores(SENSITIVITY)[:, 1])
    assert not torch.allclose(scores(one), scores(dataclasses.replace(one, seed=1)))


def test_default_size_is_224_pixels_at_224():
    net, images = Recorder(torch.nn.AdaptiveAvgPool2d(1)), torch.ones(1, 2, 224, 224)
    explanation = explained(seeded(1, 224, 224), [0])
    FaithfulnessCorrelation(n_samples=2).score(
        torch.nn.Sequential(net, torch.nn.Flatten()), images, explanation
    )
    assert {int(n) for n in (torch.cat(net.images)[:, 0] == 0).sum((1, 2))} == {224}


def test_several_maps_share_their_passes():
    passes = []
    hook = NET.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    with hook, share_passes(IMAGES):
        first, second = scores(CORRELATION), scores(CORRELATION, maps=MAPS.flip(1))
    assert sum(passes) == 2 * 20
    assert_close(first, scores(CORRELATION))
    assert_close(second, scores(CORRELATION, maps=MAPS.flip(1)))


@ALL
def test_chunks_and_traces(metric):
    with unchanged(NET, IMAGES, MAPS):
        whole = scores(metric)
    with run_settings(batch_size=3):
        assert_close(scores(metric), whole, atol=1e-5, rtol=0)


def test_result_and_curve():
    mean = torch.tensor([0.8, 0.4])
    assert SENSITIVITY.finish(mean).item() == pytest.approx(0.6)
    fractions, correlations = SENSITIVITY.curve(mean)
    assert fractions.tolist() == pytest.approx([0.05, 0.5])
    assert correlations.equal(mean)
    assert SENSITIVITY.curve_axes == ("share of pixels removed", "correlation")


def test_correlation_is_that_of_scipy():
    a, b = seeded(3, 9), seeded(3, 9, seed=1) + 1e4
    expected = [pearsonr(x, y).statistic for x, y in zip(a.double(), b.double(), strict=True)]
    found = correlate_samples(a.double(), b.double())
    assert found.tolist() == pytest.approx(expected, abs=1e-9)


def test_bad_settings():
    with pytest.raises(
        ValueError, match="n_samples must be an int of at least 2, such as 100, got 1"
    ):
        FaithfulnessCorrelation(n_samples=1)
    with pytest.raises(ValueError, match="fractions must ascend between 0 and 1"):
        SensitivityN((0.5, 0.1))
    with pytest.raises(ValueError, match="size must be an int of at least 1"):
        FaithfulnessCorrelation(size=0)
