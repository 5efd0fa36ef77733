"""Input Invariance: gradients are invariant, products with the image are not."""

import pytest
import torch
from by_hand import seeded
from nets import mixed, unchanged
from torch.testing import assert_close

import xcam
from xcam.metrics import InputInvariance
from xcam.metrics.randomization.input_invariance import shift_model
from xcam.models import Normalized
from xcam.models.toy import GapNet, LinearNet

IMAGES = seeded(3, 3, 8, 8)
TARGETS = [0, 3, 1]
NETS = {
    "plain": GapNet,
    "normalized": lambda: Normalized(GapNet(), (0.4, 0.5, 0.6), (0.2, 0.3, 0.2)),
    "parallel": lambda: torch.nn.DataParallel(GapNet()),
}


@pytest.mark.parametrize("net", NETS)
def test_shifted_model_computes_the_same(net):
    made = NETS[net]().eval()
    with torch.no_grad():
        assert_close(shift_model(made, -1.5)(IMAGES - 1.5), made(IMAGES))


@pytest.mark.parametrize("method", ["gradcam", "saliency", "smoothgrad", "sobel"])
@pytest.mark.parametrize("net", ["plain", "normalized"])
def test_methods_that_are_invariant(net, method):
    made = mixed(NETS[net]())
    explanation = xcam.explain(made, IMAGES, TARGETS, method)
    with unchanged(made, IMAGES):
        scores = InputInvariance().score(made, IMAGES, explanation)
    assert_close(scores, torch.zeros(3), atol=1e-4, rtol=0)


def test_gradient_in_the_space_of_the_net_is_invariant():
    made = NETS["normalized"]()
    saliency = xcam.get_method("saliency")(space="normalized")
    explanation = xcam.explain(made, IMAGES, TARGETS, saliency)
    assert InputInvariance().score(made, IMAGES, explanation).max() < 1e-4


@pytest.mark.parametrize("shift", [-1.0, 0.5])
def test_linear_model_in_closed_form(shift):
    """The maps are Σ_c x w and Σ_c (x + s) w."""
    net = LinearNet()
    explanation = xcam.explain(net, IMAGES, TARGETS, "input_x_gradient", reduce="sum")
    scores = InputInvariance(shift).score(net, IMAGES, explanation)
    weights = net.fc.weight.detach()[TARGETS].view(3, 3, 8, 8)
    first, second = ((each * weights).sum(1).flatten(1) for each in (IMAGES, IMAGES + shift))
    wanted = (first - second).norm(dim=1) / first.norm(dim=1).maximum(second.norm(dim=1))
    assert_close(scores, wanted, rtol=1e-4, atol=1e-5)


def test_zero_maps_are_alike():
    net = LinearNet()
    with torch.no_grad():
        net.fc.weight.zero_()
    explanation = xcam.explain(net, IMAGES, TARGETS, "saliency")
    assert InputInvariance().score(net, IMAGES, explanation).tolist() == [0, 0, 0]


def test_inside_inference_mode():
    net = mixed(GapNet())
    expected = InputInvariance().score(net, IMAGES, xcam.explain(net, IMAGES, TARGETS, "saliency"))
    with torch.inference_mode():
        explanation = xcam.explain(net, IMAGES, TARGETS, "saliency")
        found = InputInvariance().score(net, IMAGES, explanation)
    assert_close(found, expected, atol=1e-4, rtol=0)
