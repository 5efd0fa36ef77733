"""The controls: random noise, a Gaussian in the middle, edges."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

import xcam
from xcam.models.toy import GapNet


@pytest.fixture
def images():
    return torch.rand(3, 3, 12, 17, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["random", "center_gaussian", "sobel"])
def test_only_the_clean_pass_is_made(images, name):
    net, rows = GapNet(), []
    net.register_forward_hook(lambda module, arguments, output: rows.append(len(arguments[0])))
    explanation = xcam.explain(net, images, method=name)
    assert explanation.maps.shape == (3, 12, 17)
    assert sum(rows) == 3
    torch.testing.assert_close(explanation.logits, net(images).detach())


def test_random_is_uniform():
    large = xcam.explain(GapNet(), torch.zeros(1, 3, 200, 200), method="random").maps
    quantiles = torch.quantile(large.flatten(), torch.linspace(0, 1, 11))
    torch.testing.assert_close(quantiles, torch.linspace(0, 1, 11), atol=0.01, rtol=0)
    rows = large[0, :-1].flatten(), large[0, 1:].flatten()
    assert abs(float(torch.corrcoef(torch.stack(rows))[0, 1])) < 0.02


def test_random_depends_on_the_seed_and_the_image_alone(images):
    maps = xcam.explain(GapNet(), images, method="random").maps
    turned = images.flip(0).to(memory_format=torch.channels_last)
    assert torch.equal(xcam.explain(GapNet(seed=1), turned, 2, "random").maps, maps.flip(0))
    assert torch.equal(xcam.explain(GapNet(), images[1:2], method="random").maps, maps[1:2])
    assert torch.equal(xcam.explain(GapNet(), images, method="random", batch_size=2).maps, maps)
    assert not torch.equal(xcam.explain(GapNet(), images, method="random", seed=1).maps, maps)
    nearly = images + torch.finfo(torch.float32).eps
    assert not torch.equal(xcam.explain(GapNet(), nearly, method="random").maps, maps)


def test_random_tells_images_of_few_values_apart():
    images = torch.rand(300, 3, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    maps = xcam.explain(GapNet(), images, method="random").maps
    assert len(maps.flatten(1).unique(dim=0)) == 300
    black = [xcam.explain(GapNet(), 0 * images[:1], None, "random", seed=s).maps for s in (0, 1)]
    assert not torch.equal(*black)


def test_random_has_its_peaks_all_over():
    images = torch.rand(200, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    peaks = xcam.explain(GapNet(), images, method="random").maps.flatten(1).argmax(1)
    assert len(peaks.unique()) > 70
    halves = (peaks < 50).float().mean(), (peaks % 10 < 5).float().mean()
    assert all(0.4 < half < 0.6 for half in halves)


@pytest.mark.parametrize("sigma", [0.25, 0.5])
def test_center_gaussian_is_its_closed_form(images, sigma):
    maps = xcam.explain(GapNet(), images, method="center_gaussian", sigma=sigma).maps
    for i, j in [(0, 0), (5, 8), (6, 8), (11, 16), (3, 9)]:
        u, v = (i + 0.5 - 6) / 12, (j + 0.5 - 8.5) / 17
        expected = np.exp(-(u**2 + v**2) / (2 * sigma**2))
        assert float(maps[1, i, j]) == pytest.approx(expected, rel=1e-5)
    assert torch.equal(maps, maps.flip(1))
    assert torch.allclose(maps, maps.flip(2))
    assert maps.argmax() in (5 * 17 + 8, 6 * 17 + 8)  # twelve rows have two in the middle


@pytest.mark.parametrize("sigma", [0, -1, float("nan"), float("inf")])
def test_center_gaussian_needs_a_width(sigma):
    with pytest.raises(
        ValueError, match=r"sigma must be a finite number above 0, such as 0.25, got"
    ):
        xcam.methods.CenterGaussian(sigma=sigma)


def test_sobel_agrees_with_scipy(images):
    maps = xcam.explain(GapNet(), images, method="sobel").maps
    for image, found in zip(images.mean(1).numpy(), maps.numpy(), strict=True):
        down, right = (ndimage.sobel(image, axis, mode="nearest") for axis in (0, 1))
        np.testing.assert_allclose(found, np.hypot(down, right), rtol=1e-4, atol=1e-6)


def test_sobel_of_a_ramp_is_eight_times_its_slope():
    ramp = torch.linspace(0, 1.1, 12).expand(1, 1, 12, 12)
    maps = xcam.explain(nn.Sequential(nn.Flatten(), nn.Linear(144, 2)), ramp, method="sobel").maps
    torch.testing.assert_close(maps[0, :, 1:-1], torch.full((12, 10), 0.8))
