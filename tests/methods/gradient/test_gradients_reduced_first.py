"""Gradients whose channels become one before anything else, as CALM's published code has them."""

import pytest
import torch
from nets import pictures

import xcam
from xcam.methods import CALM
from xcam.methods.gradient.noisy_copies import draw_noise
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


def noisy(net, count):
    spread = (IMAGES.amax((1, 2, 3)) - IMAGES.amin((1, 2, 3)))[:, None, None, None] / 4
    copies = (IMAGES + spread * draw_noise(IMAGES.shape[1:], 0, k) for k in range(count))
    return torch.stack([largest_gradient(net, images) for images in copies])


def test_input_gradient_is_the_default_of_saliency(net):
    found = xcam.explain(net, IMAGES, CLASSES, "saliency").maps
    torch.testing.assert_close(found, largest_gradient(net, IMAGES))


def test_integrated_gradients_average_magnitudes_over_both_ends(net):
    found = xcam.explain(net, IMAGES, CLASSES, "integrated_gradients", preset="calm").raw
    steps = torch.stack([largest_gradient(net, IMAGES * k / 50) for k in range(51)])
    torch.testing.assert_close(found, steps.sum(0) / 50)


def test_smoothgrad_averages_magnitudes(net):
    found = xcam.explain(net, IMAGES, CLASSES, "smoothgrad", preset="calm").raw
    torch.testing.assert_close(found, noisy(net, 50).mean(0))


def test_smoothgrad_squared_averages_squares_of_magnitudes(net):
    found = xcam.explain(net, IMAGES, CLASSES, "smoothgrad_squared", preset="calm").raw
    torch.testing.assert_close(found, noisy(net, 50).square().mean(0))


def test_vargrad_is_the_variance_of_magnitudes(net):
    found = xcam.explain(net, IMAGES, CLASSES, "vargrad", preset="calm").raw
    magnitudes = noisy(net, 50)
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
