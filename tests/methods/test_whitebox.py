"""`preset="whitebox"`: each attribution against White Box's formula, written out."""

import dataclasses
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import xcam
from xcam.cli.literals import parse_calls
from xcam.core import Method
from xcam.methods.gradient.noisy_copies import draw_noise
from xcam.methods.postprocessing import render
from xcam.models.toy import SmallCNN
from xcam.models.whitebox.ran import RAN
from xcam.models.whitebox.simple_cnn import SimpleCNN
from xcam.registry import make_method
from xcam.testing import quick
from xcam.testing.method_subject import explain_quietly

CLASSES = torch.tensor([0, 1, 2, 3])
SIZE = 16


def bars(count, channels, seed):
    """Noise with a bright bar at the height of the class, normalized: 0 is gray, not black."""
    images = torch.rand(count, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(count) % 4
    for image, label in zip(images, labels, strict=True):
        image[:, 4 * label : 4 * label + 3] += 1
    return (images - 0.6) / 0.5, labels


class GapClassifier(nn.Module):
    """White Box's CAM form: one linear layer behind the mean of `features.11`."""

    def __init__(self, net):
        super().__init__()
        self.features, self.fc = net.features, nn.Linear(128, 4)

    def forward(self, images):
        return self.fc(self.features(images).mean((2, 3)))


def train(net, channels, steps=6):
    images, labels = bars(16, channels, 0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
    assert (net.eval()(images).argmax(1) == labels).float().mean() > 0.9
    return net


@pytest.fixture(scope="module", params=[1, 3], ids=["gray", "color"])
def channels(request):
    return request.param


@pytest.fixture(scope="module")
def net(channels):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return train(SimpleCNN(4, channels, SIZE), channels)


@pytest.fixture(scope="module")
def images(channels):
    return bars(4, channels, 1)[0]


def gradient(net, images, layer=None, guided=False):
    """∂ p_t/∂ image, or at the output of a layer of `features`, with that output."""
    leaf = values = images.clone().requires_grad_()
    gates = iter(net.attention)
    for number, module in enumerate(net.features):
        is_guided = guided and isinstance(module, nn.ReLU)
        values = Guided.apply(values) if is_guided else module(values)
        if net.attention and isinstance(module, nn.Conv2d):
            values = next(gates)(values)
        if number == layer:
            leaf = values
    probabilities = net.classifier(values).softmax(1)
    chosen = probabilities[torch.arange(len(images)), CLASSES].sum()
    return torch.autograd.grad(chosen, leaf)[0].numpy(), leaf.detach().numpy()


class Guided(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (values,) = ctx.saved_tensors
        return gradient.clamp(min=0) * (values > 0)


def stretch(values):
    """Min-max of each image over all its elements."""
    return np.stack([(one - one.min()) / (one.max() - one.min()) for one in values])


def picture(maps):
    """Min-max, bytes, Lanczos."""
    bytes_ = (stretch(maps) * 255).astype(np.uint8)
    resized = [Image.fromarray(one).resize((SIZE, SIZE), Image.LANCZOS) for one in bytes_]
    return np.stack([np.asarray(one) for one in resized])


def gradcam(net, images):
    slope, activation = gradient(net, images, layer=8)
    return np.maximum((slope.mean((2, 3), keepdims=True) * activation).sum(1), 0)


def raw(net, images, method, **settings):
    return xcam.explain(net, images, CLASSES, method, preset="whitebox", **settings).raw.numpy()


def close(found, expected, tolerance=2e-4):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance


def test_saliency(net, images):
    close(raw(net, images, "saliency"), stretch(gradient(net, images)[0]))


def test_input_x_gradient(net, images):
    expected = stretch(stretch(gradient(net, images)[0]) * stretch(images.numpy()))
    close(raw(net, images, "input_x_gradient"), expected)


def test_guided_backprop_leaves_the_classifier_alone(net, images):
    found = raw(net, images, "guided_backprop")
    close(found, stretch(gradient(net, images, guided=True)[0]))
    everywhere = xcam.methods.GuidedBackprop(output="prob", stretched=True)
    assert np.abs(xcam.explain(net, images, CLASSES, everywhere).raw.numpy() - found).max() > 0.01


def test_guided_backprop_of_layers_that_are_called_one_by_one(images, channels):
    """With CBAM, no pass calls `features` as a whole."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = SimpleCNN(4, channels, SIZE, attention="cbam").eval()
    close(raw(net, images, "guided_backprop"), stretch(gradient(net, images, guided=True)[0]))


def test_integrated_gradients(net, images):
    steps = [gradient(net, images * j / 10)[0] for j in range(11)]
    close(raw(net, images, "integrated_gradients"), stretch(sum(steps) / 10))


def test_gradcam_is_an_8_bit_picture(net, images):
    found = raw(net, images, "gradcam", layer="features.8")
    close(found, picture(gradcam(net, images)) / 255, 1.01 / 255)  # a rounding may cost a step
    assert np.mean(found * 255 == picture(gradcam(net, images))) > 0.99


def test_conv_output(net, images):
    expected = net.features(images).detach().mean(1).numpy()
    close(raw(net, images, "conv_output", layer="features.11"), picture(expected) / 255, 1.01 / 255)


def test_cam(net, images):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gap = GapClassifier(net).eval()
    features = gap.features(images).detach().numpy()
    weights = gap.fc.weight.detach().numpy()[CLASSES]
    maps = np.einsum("bk,bkhw->bhw", weights, features)
    assert maps.min() < 0  # no ReLU, of which a negative value would tell
    close(raw(gap, images, "cam", layer="features.11"), picture(maps) / 255, 1.01 / 255)


def test_guided_gradcam(net, images):
    gray = picture(gradcam(net, images))[:, None] / 255
    expected = stretch(gray * stretch(gradient(net, images, guided=True)[0]))
    close(raw(net, images, "guided_gradcam", layer="features.8"), expected, 2 / 255)


def test_jet_ranks_by_color_only_if_asked_for(net, images):
    settings = {"layer": "features.8", "preset": "whitebox_jet"}
    found = xcam.explain(net, images, CLASSES, "gradcam", **settings).raw
    gray = picture(gradcam(net, images))
    colored = [cv2.applyColorMap(one, cv2.COLORMAP_JET)[..., ::-1] for one in gray]
    expected = np.stack(colored).transpose(0, 3, 1, 2)
    assert found.shape == (4, 3, SIZE, SIZE)
    assert np.mean(np.abs(found.numpy() * 255 - expected) <= 5) > 0.99


def test_highest_values_of_jet_are_not_those_of_the_map():
    ramp = torch.arange(256.0).view(1, 16, 16)
    jet = (render(ramp, (16, 16), "jet")[0] * 255).round().int().flatten(1)
    assert torch.equal(render(ramp, (16, 16), "gray")[0].flatten(), torch.arange(256) / 255)
    assert jet[:, 255].tolist() == [128, 0, 0]
    for channel, (first, last) in enumerate(((160, 223), (96, 159), (32, 95))):
        saturated = (jet[channel] == 255).nonzero().flatten()
        assert (saturated.min(), saturated.max()) == (first, last)


def test_flat_maps_become_black_pictures():
    assert not render(torch.full((2, 3, 3), 0.7), (6, 6), "gray").any()


def test_pictures_of_wide_images_keep_their_sides():
    maps = torch.zeros(1, 2, 4)
    maps[0, 0, 3] = 1
    rendered = render(maps, (6, 12), "gray")
    assert rendered.shape == (1, 6, 12)
    assert rendered[0].argmax() // 12 < 3
    assert rendered[0].argmax() % 12 > 8


def noisy(images, first, count):
    """White Box's σ divides by the range, and is squared."""
    span = images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)
    draws = (draw_noise(images.shape[1:], 0, k) for k in range(first, first + count))
    return [images + (2 / span) ** 2 * drawn for drawn in draws]


@pytest.fixture(scope="module")
def base_maps(net, images):
    """The stretched gradients of 3 noisy copies, and of 3 others."""
    shown = noisy(images, 0, 6)
    return np.stack([stretch(gradient(net, copy)[0]) for copy in shown])


def ensemble(net, images, method, **settings):
    """With 3 of the preset's 50 samples."""
    made = xcam.get_method(method)(preset="whitebox", **settings)
    assert (made.n_samples, made.noise) == (50, 2.0)
    return xcam.explain(net, images, CLASSES, dataclasses.replace(made, n_samples=3)).raw.numpy()


def test_smoothgrad_averages_stretched_maps(net, images, base_maps):
    close(ensemble(net, images, "smoothgrad"), stretch(base_maps[:3].mean(0)))


def test_smoothgrad_squared_squares_stretched_maps(net, images, base_maps):
    close(ensemble(net, images, "smoothgrad_squared"), stretch((base_maps[:3] ** 2).mean(0)))


def test_vargrad_subtracts_a_stretched_mean_of_other_noise(net, images, base_maps):
    other = stretch(base_maps[3:].mean(0))
    close(ensemble(net, images, "vargrad"), stretch((base_maps[:3] ** 2).mean(0) - other**2))


def test_named_base_gets_the_preset_too(net, images):
    maps = [stretch(gradient(net, copy, guided=True)[0]) for copy in noisy(images, 0, 3)]
    found = ensemble(net, images, "smoothgrad", base="guided_backprop")
    close(found, stretch(np.mean(maps, 0)))
    settings = {"preset": "whitebox", "layer": "features.8"}
    cams = [picture(gradcam(net, copy)) / 255 for copy in noisy(images, 0, 3)]
    found = ensemble(net, images, "smoothgrad", base=("gradcam", settings))
    close(found, stretch(np.mean(cams, 0)), 3 / 255)


def test_flat_images_get_no_noise():
    method = xcam.methods.SmoothGrad(n_samples=2, noise=2.0, spread="whitebox")
    flat = torch.full((1, 3, 8, 8), 0.5)
    plain = xcam.explain(SmallCNN(), flat, 0, "saliency").raw
    torch.testing.assert_close(xcam.explain(SmallCNN(), flat, 0, method).raw, plain)


def originals():
    """The methods and metrics that the page of original commands names for White Box."""
    page = (Path(__file__).parents[2] / "docs" / "coming_from" / "originals.md").read_text("utf-8")
    section = page[page.index("## White Box") :].split("\n## ")[0]
    for option, make in (("--methods", make_method), ("--metrics", make_metric)):
        for text in re.findall(f'{option} "([^"]*)"', section):
            yield from parse_calls(option, text, make)


def make_metric(name, settings):
    return xcam.get_metric(name)(**settings)


@pytest.mark.parametrize("method", [m for m in originals() if isinstance(m, Method)], ids=repr)
def test_methods_on_the_originals_page_explain_the_nets_that_they_are_for(method):
    layer = method.parameters().get("layer") or ""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if layer.startswith("stages"):
            net = RAN(4, 1, width=4)
        else:
            attention = "cam" if method.spec.name == "cam" else "cbam"
            net = SimpleCNN(4, 1, 28, attention=attention)
    shown = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    found = explain_quietly(quick(method), net.eval(), shown, [1])
    assert found.maps.shape[-2:] == (28, 28)
    assert 0 <= found.raw.min() <= found.raw.max() <= 1


def test_metrics_on_the_originals_page_are_the_rule_and_its_correction():
    found = {repr(metric) for metric in originals() if isinstance(metric, xcam.Metric)}
    corrected = xcam.metrics.Selectivity(unit="element", recompute=True, steps=50, step=1)
    assert found == {repr(xcam.metrics.Selectivity(preset="whitebox")), repr(corrected)}
