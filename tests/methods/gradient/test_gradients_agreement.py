"""Integrated Gradients, Input x Gradient and Saliency against captum, on real nets.

In float64: in float32 a ReLU whose input is almost zero opens in one memory layout and not in the
other, which moves single pixels by 1e-4 of the range.
"""

import copy

import captum.attr
import pytest
import torch

import xcam
from xcam.methods import IntegratedGradients

STEPS = 6


@pytest.fixture(scope="module", params=["lite0", "resnet18"])
def net(request):
    """A trained EfficientNet-Lite0, or a ResNet-18 of random weights."""
    if request.param == "lite0":
        return copy.deepcopy(request.getfixturevalue("lite0")).double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return xcam.models.load("torchvision:resnet18").double()


@pytest.fixture(scope="module")
def images(photographs):
    return photographs[:2, :, ::3, ::3].double()


@pytest.fixture(scope="module")
def classes(net, images):
    with torch.no_grad():
        return net(images).argmax(1)


def agree(ours, theirs):
    theirs = theirs.detach()
    return float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


@pytest.mark.parametrize(
    ("rule", "theirs", "factor"),
    [
        ("gausslegendre", "gausslegendre", 1),
        ("middle", "riemann_middle", 1),
        # captum's trapezoid of n points weighs 1/n, so that a constant integrates to (n - 1)/n.
        ("trapezoid", "riemann_trapezoid", (STEPS - 1) / STEPS),
    ],
)
def test_integrated_gradients(net, images, classes, rule, theirs, factor):
    # Of a flat baseline all that a max-pooling sees is equal, and the memory layout picks one.
    baseline = torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)
    method = IntegratedGradients(n_steps=STEPS, rule=rule, baseline=baseline)
    ours = xcam.explain(net, images, method=method)
    expected = captum.attr.IntegratedGradients(net).attribute(
        images,
        baseline.expand_as(images),
        classes,
        n_steps=STEPS,
        method=theirs,
        internal_batch_size=4,
    )
    assert torch.equal(ours.target, classes)
    assert agree(ours.raw * factor, expected)


def test_input_x_gradient(net, images, classes):
    expected = captum.attr.InputXGradient(net).attribute(
        images.clone().requires_grad_(), target=classes
    )
    assert agree(xcam.explain(net, images, method="input_x_gradient").raw, expected)


def test_saliency(net, images, classes):
    expected = captum.attr.Saliency(net).attribute(
        images.clone().requires_grad_(), target=classes, abs=False
    )
    assert agree(xcam.explain(net, images, method="saliency").raw, expected)
