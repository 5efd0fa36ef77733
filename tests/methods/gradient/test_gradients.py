"""Saliency, Input x Gradient and Integrated Gradients against closed forms and plain autograd."""

import numpy as np
import pytest
import torch
from torch import nn

import xcam
from xcam.core import Target
from xcam.errors import ModelOutputError
from xcam.methods import InputXGradient, IntegratedGradients, Saliency
from xcam.models.toy import LinearNet, SmallCNN

RULES = ("gausslegendre", "trapezoid", "left", "middle", "right")
CLASSES = [3, 0, 1]


@pytest.fixture
def images():
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def linear():
    return LinearNet()


@pytest.fixture
def weights(linear):
    """The row of each image's class, as an image."""
    return linear.fc.weight.detach()[CLASSES].view(3, 3, 8, 8)


def autograd(net, images, classes, score=lambda logits: logits):
    leaf = images.clone().requires_grad_()
    chosen = score(net(leaf))[torch.arange(len(leaf)), classes]
    return torch.autograd.grad(chosen.sum(), leaf)[0]


def close(a, b, limit=1e-6):
    return float((a - b).abs().max()) <= limit * float(b.abs().max())


def test_saliency_of_a_linear_net_is_its_weights(linear, images, weights):
    explanation = xcam.explain(linear, images, CLASSES, "saliency")
    assert torch.equal(explanation.raw, weights)
    assert torch.equal(explanation.maps, weights.abs().amax(1))


def test_input_x_gradient_of_a_linear_net_adds_up_to_the_score(linear, images, weights):
    explanation = xcam.explain(linear, images, CLASSES, "input_x_gradient")
    assert torch.equal(explanation.raw, weights * images)
    scores = linear(images)[range(3), CLASSES] - linear.fc.bias[CLASSES]
    torch.testing.assert_close(explanation.maps.sum((1, 2)), scores.detach())


def test_input_x_gradient_of_white_box_multiplies_stretched_factors(images):
    def stretch(values):
        flat = values.flatten(1)
        low, high = flat.min(1, keepdim=True)[0], flat.max(1, keepdim=True)[0]
        return ((flat - low) / (high - low)).view_as(values)

    net = SmallCNN()
    method = InputXGradient(output="prob", stretched=True)
    gradient = autograd(net, images, CLASSES, lambda logits: logits.softmax(1))
    expected = stretch(stretch(gradient) * stretch(images))
    raw = xcam.explain(net, images, CLASSES, method).raw
    assert close(raw, expected, 1e-5)
    assert float(raw.min()) >= 0


@pytest.mark.parametrize(
    ("output", "function"),
    [
        ("logit", lambda logits: logits),
        ("prob", lambda logits: logits.softmax(1)),
        ("logprob", lambda logits: logits.log_softmax(1)),
    ],
)
def test_saliency_differentiates_the_chosen_output(images, output, function):
    net = SmallCNN()
    raw = xcam.explain(net, images, CLASSES, "saliency", output=output).raw
    assert close(raw, autograd(net, images, CLASSES, function), 1e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("baseline", ["zero", "mean", "blur", torch.tensor([0.2, 0.5, 0.1])])
def test_integrated_gradients_are_exact_on_a_linear_net(linear, images, weights, rule, baseline):
    from xcam.imaging import make_fill

    method = IntegratedGradients(n_steps=4, rule=rule, baseline=baseline)
    way = images - make_fill(images, baseline)
    explanation = xcam.explain(linear, images, CLASSES, method)
    assert close(explanation.raw, weights * way)
    assert torch.equal(explanation.maps, explanation.raw.sum(1))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("baseline", ["zero", "blur"])
def test_integrated_gradients_are_complete(images, rule, baseline):
    from xcam.imaging import make_fill

    net, images = SmallCNN().double(), images.double()
    method = IntegratedGradients(n_steps=300, rule=rule, baseline=baseline)
    raw = method.maps(net, images, Target.of(CLASSES, images))
    assert raw.dtype == torch.float64
    with torch.no_grad():
        gained = (net(images) - net(make_fill(images, baseline)))[range(3), CLASSES]
    assert float((raw.sum((1, 2, 3)) / gained - 1).abs().max()) <= 0.01


def test_integrated_gradients_are_not_complete_with_few_steps(images):
    """So that the test above is one: a single gradient at the image misses by far more."""
    net, images = SmallCNN().double(), images.double()
    method = IntegratedGradients(n_steps=1, rule="right")
    raw = method.maps(net, images, Target.of(CLASSES, images))
    with torch.no_grad():
        gained = (net(images) - net(torch.zeros_like(images)))[range(3), CLASSES]
    assert float((raw.sum((1, 2, 3)) / gained - 1).abs().max()) > 0.05


def test_integrated_gradients_of_white_box(images):
    net = SmallCNN()
    expected = torch.zeros_like(images)
    for j in range(11):
        at = images * j / 10
        expected += autograd(net, at, CLASSES, lambda logits: logits.softmax(1)) / 10
    method = IntegratedGradients(
        n_steps=11, rule="whitebox", multiply_by_inputs=False, output="prob"
    )
    assert close(xcam.explain(net, images, CLASSES, method).raw, expected, 1e-5)


def test_integrated_gradients_of_the_paper(images):
    net = SmallCNN()
    expected = sum(autograd(net, images * k / 7, CLASSES) for k in range(1, 8)) / 7 * images
    raw = xcam.explain(net, images, CLASSES, "integrated_gradients", rule="right", n_steps=7).raw
    assert close(raw, expected, 1e-5)


@pytest.mark.parametrize(
    ("method", "a_image"),
    [
        (Saliency(), 1),
        (InputXGradient(), 1),
        (IntegratedGradients(n_steps=6), 7),
    ],
)
def test_passes(images, method, a_image):
    net, rows, backwards = SmallCNN(), [], []

    def count(_module, arguments, output):
        rows.append(len(arguments[0]))
        if output.requires_grad:
            output.register_hook(lambda gradient: backwards.append(len(gradient)))

    net.register_forward_hook(count)
    xcam.explain(net, images, None, method, batch_size=2)
    assert sum(rows) == 3 * a_image
    assert sum(backwards) == 3 * max(1, a_image - 1)
    assert max(rows) <= 2  # memory is that of two images, however many steps there are


def test_mean_gradient_of_a_half_precision_model_is_float32(images):
    net, images = SmallCNN().bfloat16(), images.bfloat16()
    raw = IntegratedGradients(n_steps=3).maps(net, images, Target.of(CLASSES, images))
    assert raw.dtype == torch.float32


METHODS = [Saliency(), InputXGradient(), IntegratedGradients(n_steps=3)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.spec.name)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_under_the_callers_grad_mode(images, method, mode):
    net = SmallCNN().requires_grad_(False)
    expected = xcam.explain(net, images, CLASSES, method).raw
    with mode():
        given = images * 1  # an inference tensor under inference_mode
        assert torch.equal(xcam.explain(net, given, CLASSES, method).raw, expected)
        assert not torch.is_grad_enabled()
    assert not given.requires_grad


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.spec.name)
@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, lambda net: torch.compile(net, backend="eager")],
    ids=["data_parallel", "compiled"],
)
def test_wrapped_models(images, method, wrap):
    net = SmallCNN()
    wrapped = wrap(net)
    with torch.no_grad():
        wrapped(images)  # a compiled model has now been traced without gradients
    expected = xcam.explain(net, images, CLASSES, method).raw
    assert close(xcam.explain(wrapped, images, CLASSES, method).raw, expected)


class WritesToItsInput(nn.Module):
    def forward(self, images):
        return images.mul_(2).mean((2, 3))


@pytest.mark.parametrize("channels", [1, 3])  # one channel is channels_last without a copy
def test_model_that_writes_to_its_input_gets_correct_gradients(images, channels):
    images = images[:, :channels].contiguous()
    before = images.clone()
    raw = xcam.explain(WritesToItsInput(), images, channels - 1, "saliency").raw
    assert torch.equal(images, before)
    assert torch.equal(raw[:, channels - 1], torch.full((3, 8, 8), 2 / 64))
    assert not raw[:, : channels - 1].any()


class CutsTheGraph(nn.Module):
    def forward(self, images):
        return images.detach().mean((2, 3))


@pytest.mark.parametrize(
    ("net", "target"),
    [
        (CutsTheGraph(), 1),
        (SmallCNN(), lambda output, rows: torch.ones(len(rows))),
        (SmallCNN(), lambda output, rows: torch.ones(len(rows), requires_grad=True)),
    ],
    ids=["detached", "constant", "of something else"],
)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.spec.name)
def test_score_without_gradient_is_refused(images, net, target, method):
    with pytest.raises(ModelOutputError, match="the score has no gradient at the images"):
        xcam.explain(net, images, target, method)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (
            {"n_steps": 0},
            "^integrated_gradients: n_steps must be an int of at least 1, such as 50, got 0",
        ),
        ({"n_steps": 1, "rule": "trapezoid"}, "at least 2 for the trapezoid rule, got 1"),
        ({"rule": "simpson"}, "rule must be 'gausslegendre', 'trap.* or 'whitebox', got 'simpson'"),
    ],
)
def test_values_that_cannot_be_run(parameters, sentence):
    with pytest.raises(ValueError, match=sentence):
        IntegratedGradients(**parameters)


@pytest.mark.parametrize("name", ["gausslegendre", "trapezoid", "left", "middle", "right"])
def test_quadrature_weights_add_up_to_one(images, name):
    """On a score that is constant on the way, the mean gradient is the gradient."""
    net, method = LinearNet(), IntegratedGradients(rule=name, multiply_by_inputs=False)
    raw = xcam.explain(net, images, 2, method).raw
    assert np.allclose(raw, net.fc.weight[2].detach().view(3, 8, 8), rtol=1e-5)


def test_whitebox_presets_are_plain_fields(images):
    settings = {"rule": "whitebox", "n_steps": 11, "multiply_by_inputs": False, "output": "prob"}
    found = xcam.explain(SmallCNN(), images, method="ig", preset="whitebox")
    expected = xcam.methods.IntegratedGradients(**settings, reduce="sum", stretched=True)
    assert repr(found.method) == repr(expected)
    with pytest.raises(ValueError, match="preset 'whitebox' sets n_steps=11, got n_steps=50"):
        xcam.methods.IntegratedGradients(n_steps=50, preset="whitebox")
