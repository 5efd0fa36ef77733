"""Continuity: shifted images, a loop over them, and maps that move or stay."""

import pytest
import torch
from by_hand import seeded
from similar_maps import Multiple
from torch.testing import assert_close

import xcam
from xcam.metrics import Continuity
from xcam.metrics.robustness.continuity import shift_images
from xcam.models.toy import GapNet

IMAGES = seeded(3, 1, 6, 8) + 0.1
CLASSES = [2, 0, 3]


def explain(method):
    return xcam.explain(GapNet(1), IMAGES, CLASSES, method)


def shifted(image, pixels, fill=0.0):
    """One image (C, H, W), column after column."""
    moved = torch.full_like(image, fill)
    for column in range(image.shape[2]):
        if 0 <= column - pixels < image.shape[2]:
            moved[..., column] = image[..., column - pixels]
    return moved


@pytest.mark.parametrize("fill", [0.0, 0.5])
def test_images_are_shifted_and_filled(fill):
    shifts = torch.tensor([-3, 0, 8])
    found = shift_images(IMAGES, shifts, torch.full_like(IMAGES, fill))
    expected = [shifted(image, int(s), fill) for image, s in zip(IMAGES, shifts, strict=True)]
    assert torch.equal(found, torch.stack(expected))
    assert bool((found[2] == fill).all())


@pytest.mark.parametrize(("n_steps", "shifts"), [(4, (-4, 0, 4, 8)), (3, (-3, 2, 8))])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_loop_finds_the_same(n_steps, shifts, normalize):
    metric = Continuity(n_steps=n_steps, fill=torch.tensor(0.3), normalize=normalize)
    found = metric.score(GapNet(1), IMAGES, explain(Multiple(-2.0)))
    for image, value in zip(IMAGES.double(), found, strict=True):
        rates = []
        for pixels in shifts:
            other = shifted(image, pixels, 0.3)
            scales = [one.abs().max() if normalize else 0.5 for one in (image, other)]
            change = (image / scales[0] - other / scales[1]).abs().sum()
            rates.append(change / (image - other).norm() if pixels else 0)
        assert_close(value, torch.as_tensor(max(rates)), rtol=1e-5, atol=0)


def test_constant_maps_are_continuous_and_uniform_images_do_not_move():
    metric = Continuity(n_steps=4, fill="mean")
    net = GapNet(1)
    assert metric.score(net, IMAGES, explain(Multiple(0.0, 1.0))).tolist() == [0, 0, 0]
    gray = torch.full_like(IMAGES, 0.5)
    again = xcam.explain(net, gray, CLASSES, Multiple())
    assert metric.score(net, gray, again).tolist() == [0, 0, 0]
