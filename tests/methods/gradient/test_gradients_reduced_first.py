"""Gradients whose channels become one before anything else, as CALM's published code has them."""

import pytest
import torch
from nets import pictures

import xcam
from xcam.methods import CALM
from xcam.methods.gradient.noisy_copies import draw_noise
from xcam.models import Normalized
from xcam.models.toy import SmallCNN

IMAGES, CLASSES = pictures(3, size=16), torch.tensor([1, 0, 2])


@pytest.fixture(scope="module")
def net():
    """A net of CALM's baseline, whose logits are means of class activations."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = CALM(loss="cam").attach(SmallCNN(num_classes=4))
    net.fitted = True
    return net.eval()


def largest_gradient(net, images):
    """max over channels of |∂ logit / ∂ input|."""
    leaf = images.clone().requires_grad_()
    scores = net(leaf)[torch.arange(len(images)), CLASSES]
    return torch.autograd.grad(scores.sum(), leaf)[0].abs().amax(1)


def noisy(net, images=IMAGES):
    spread = (images.amax((1, 2, 3)) - images.amin((1, 2, 3)))[:, None, None, None] / 4
    copies = (images + spread * draw_noise(images.shape[1:], 0, k) for k in range(50))
    return torch.stack([largest_gradient(net, copy) for copy in copies])


def test_input_gradient_is_the_default_of_saliency(net):
    found = xcam.explain(net, IMAGES, CLASSES, "saliency").maps
    torch.testing.assert_close(found, largest_gradient(net, IMAGES))


def test_integrated_gradients_average_magnitudes_over_both_ends(net):
    found = xcam.explain(net, IMAGES, CLASSES, "integrated_gradients", preset="calm").raw
    steps = torch.stack([largest_gradient(net, IMAGES * k / 50) for k in range(51)])
    torch.testing.assert_close(found, steps.sum(0) / 50)


def test_smoothgrad_averages_magnitudes(net):
    found = xcam.explain(net, IMAGES, CLASSES, "smoothgrad", preset="calm").raw
    torch.testing.assert_close(found, noisy(net).mean(0))


def test_smoothgrad_squared_averages_squares_of_magnitudes(net):
    found = xcam.explain(net, IMAGES, CLASSES, "smoothgrad_squared", preset="calm").raw
    torch.testing.assert_close(found, noisy(net).square().mean(0))


def test_vargrad_is_the_variance_of_magnitudes(net):
    found = xcam.explain(net, IMAGES, CLASSES, "vargrad", preset="calm").raw
    magnitudes = noisy(net)
    expected = magnitudes.square().mean(0) - magnitudes.mean(0).square()
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-3)


def test_channels_are_reduced_as_told(net):
    settings = {"n_samples": 3, "noise": 0.25}
    each = {"reduce": "sum", "reduce_each": True, **settings}
    found = xcam.explain(net, IMAGES, CLASSES, "smoothgrad", **each).raw
    whole = xcam.explain(net, IMAGES, CLASSES, "smoothgrad", reduce="sum", **settings)
    torch.testing.assert_close(found, whole.raw.sum(1))  # a sum of signed values, in either order
    assert found.shape == (3, 16, 16)


def test_reduced_gradients_leave_no_channels_for_the_factor():
    with pytest.raises(ValueError, match="give multiply_by_inputs=False, too"):
        xcam.methods.IntegratedGradients(reduce_each=True)


@pytest.fixture(scope="module")
def normalized(net):
    return Normalized(net, (0.485, 0.456, 0.406), (0.229, 0.12, 0.4))


@pytest.fixture(scope="module")
def inside(normalized):
    return normalized.normalize(IMAGES)


class TestNormalizedSpace:
    """The presets change and differentiate what the net inside a `Normalized` is given."""

    def test_saliency(self, net, normalized, inside):
        found = xcam.explain(normalized, IMAGES, CLASSES, "saliency", preset="calm").maps
        torch.testing.assert_close(found, largest_gradient(net, inside))

    def test_integrated_gradients_begin_at_the_mean_color(self, net, normalized, inside):
        found = xcam.explain(normalized, IMAGES, CLASSES, "ig", preset="calm").raw
        steps = torch.stack([largest_gradient(net, inside * k / 50) for k in range(51)])
        torch.testing.assert_close(found, steps.sum(0) / 50)

    @pytest.mark.parametrize(
        ("method", "statistic"),
        [
            ("smoothgrad", lambda maps: maps.mean(0)),
            ("smoothgrad_squared", lambda maps: maps.square().mean(0)),
            ("vargrad", lambda maps: maps.var(0, unbiased=False)),
        ],
    )
    def test_noise_is_a_share_of_the_normalized_range(
        self, net, normalized, inside, method, statistic
    ):
        expected = statistic(noisy(net, inside))
        found = xcam.explain(normalized, IMAGES, CLASSES, method, preset="calm").raw
        torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-3)

    def test_input_space_is_the_default(self, normalized):
        found = xcam.explain(normalized, IMAGES, CLASSES, "saliency").maps
        torch.testing.assert_close(found, largest_gradient(normalized, IMAGES))

    def test_integrated_gradients_add_up_to_the_score_less_that_of_the_mean(self, net, normalized):
        settings = {"space": "normalized", "n_steps": 100}
        found = xcam.explain(normalized, IMAGES, CLASSES, "ig", **settings).maps
        rows = torch.arange(3)
        change = (normalized(IMAGES) - net(torch.zeros_like(IMAGES)))[rows, CLASSES]
        torch.testing.assert_close(found.sum((1, 2)), change, atol=1e-3, rtol=1e-2)

    def test_base_explains_images_as_they_are_given(self, normalized):
        settings = {"n_samples": 50, "noise": 0.25, "reduce": "abs_max"}
        calm = {"base": "gradcam", "preset": "calm"}
        found = xcam.explain(normalized, IMAGES, CLASSES, "smoothgrad", **calm).raw
        plain = {"base": "gradcam", "reduce_each": True, **settings}
        whole = xcam.explain(normalized, IMAGES, CLASSES, "smoothgrad", **plain).raw
        torch.testing.assert_close(found, whole)
        with pytest.raises(ValueError, match="a base explains the images as they are given"):
            xcam.methods.SmoothGrad(base="gradcam", space="normalized")
