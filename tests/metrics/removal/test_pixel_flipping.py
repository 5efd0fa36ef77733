"""Pixel flipping: closed form, a loop in place, and Quantus' convention."""

import pytest
import torch
from by_hand import curve_of, edited, explained, seeded
from nets import unchanged
from torch.testing import assert_close

from xcam.engine.forward import run_settings
from xcam.metrics import Deletion, PixelFlipping
from xcam.models import Normalized
from xcam.models.toy import LinearNet, SmallCNN

IMAGES = seeded(2, 3, 8, 9)
MAPS = seeded(2, 8, 9, seed=1) - 0.5
CLASSES = [3, 1]
NORMALISED = Normalized(SmallCNN(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))


def curves(metric, model):
    return metric.score(model, IMAGES, explained(MAPS, CLASSES))


def test_logits_of_a_linear_net():
    net = LinearNet((3, 8, 9))
    shares = (net.fc.weight.view(5, 3, 8, 9)[CLASSES] * IMAGES).sum(1).flatten(1)
    left = shares.gather(1, MAPS.flatten(1).argsort(1)).cumsum(1).flip(1)
    expected = net.fc.bias[CLASSES][:, None] + torch.nn.functional.pad(left, (0, 1))
    assert_close(curves(PixelFlipping(step=1), net), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("step", [1, 10])
def test_curves_match_an_inplace_loop(step):
    found = curves(PixelFlipping(step=step), NORMALISED)
    for i, target in enumerate(CLASSES):
        flipped = edited(IMAGES[i], torch.zeros_like(IMAGES[i]), MAPS[i], step)
        by_hand = curve_of(NORMALISED, flipped, target, prob=False)
        assert_close(found[i], by_hand, atol=1e-5, rtol=1e-5)


def test_pixel_flipping_is_deletion_with_other_defaults():
    same = PixelFlipping(output="prob", space="normalized")
    assert curves(same, NORMALISED).equal(curves(Deletion(), NORMALISED))
    assert not torch.allclose(
        curves(PixelFlipping(output="prob"), NORMALISED), curves(same, NORMALISED)
    )


@pytest.mark.parametrize("size", [1, 3, 100])
def test_curves_are_the_same_for_any_batch_size(size):
    whole = curves(PixelFlipping(), NORMALISED)
    with run_settings(batch_size=size):
        assert_close(curves(PixelFlipping(), NORMALISED), whole, atol=1e-6, rtol=1e-6)


def test_result_and_traces():
    metric = PixelFlipping(step=9)
    with unchanged(NORMALISED, IMAGES, MAPS):
        found = curves(metric, NORMALISED)
    assert found.shape == (2, 9)
    assert_close(metric.finish(found), torch.trapezoid(found, dx=1 / 8))
    shares, ordinates = metric.curve(found)
    assert shares.tolist() == [n / 8 for n in range(9)]
    assert ordinates.equal(found)


def test_bad_settings():
    with pytest.raises(ValueError, match="step must be an int of at least 1"):
        PixelFlipping(step=0)
