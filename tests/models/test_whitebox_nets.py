"""CAM's and CBAM's forms of SimpleCNN, RAN and WARN: counts, and forwards by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.errors import LayerError
from xcam.models import load
from xcam.models.whitebox.cbam import CBAM
from xcam.models.whitebox.ran import RAN
from xcam.models.whitebox.simple_cnn import SimpleCNN
from xcam.models.whitebox.warn import WARN

MNIST, CIFAR = {"in_channels": 1, "input_size": 28}, {"in_channels": 3, "input_size": 32}
GRAY, COLOR = {"in_channels": 1}, {"in_channels": 3}


def build(kind, **settings):
    """A net in eval mode whose statistics are not the trivial ones."""
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = kind(**settings).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low in ((module.running_mean, -0.2), (module.running_var, 0.5)):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + low)
            with torch.no_grad():
                module.bias.copy_(torch.rand(module.bias.shape, generator=generator) - 0.5)
    return net


def pixels(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(2))


def count(kind, **settings):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in kind(**settings).parameters())


@pytest.mark.parametrize(
    ("kind", "settings", "live", "published"),
    [
        (SimpleCNN, {**MNIST}, 1_284_042, 1_284_042),
        (SimpleCNN, {**CIFAR}, 2_202_122, 2_202_122),
        (SimpleCNN, {**MNIST, "attention": "cam"}, 94_410, 1_285_332),
        (SimpleCNN, {**CIFAR, "attention": "cam"}, 94_986, 2_203_412),
        (SimpleCNN, {**MNIST, "attention": "cbam"}, 1_287_271, 1_288_561),
        (SimpleCNN, {**CIFAR, "attention": "cbam"}, 2_205_351, 2_206_641),
        (RAN, GRAY, 18_199_562, 27_987_466),
        (RAN, COLOR, 18_202_762, 27_990_666),
    ],
)
def test_parameters_that_live_and_those_that_were_published(kind, settings, live, published):
    assert count(kind, **settings) == live
    assert count(kind, **settings, dead_weights=True) == published


@pytest.mark.parametrize(("settings", "number"), [(GRAY, 6_043_362), (COLOR, 6_043_650)])
def test_parameters_of_warn(settings, number):
    assert count(WARN, **settings) == number


@pytest.mark.parametrize(("channels", "number"), [(32, 263), (64, 681), (128, 2285)])
def test_parameters_of_cbam(channels, number):
    assert count(CBAM, channels=channels, form="whitebox") == number
    assert count(CBAM, channels=channels) == number - 1  # a convolution without bias


SMALL = [
    (SimpleCNN, {**MNIST, "attention": "cam"}),
    (SimpleCNN, {**MNIST, "attention": "cbam"}),
    (RAN, {"in_channels": 1, "width": 4}),
]


@pytest.mark.parametrize(("kind", "settings"), SMALL)
def test_dead_weights_are_dead(kind, settings):
    """The net of the same live weights gives the same, and no gradient reaches the others."""
    net, full = build(kind, **settings), build(kind, **settings, dead_weights=True)
    found = full.load_state_dict(net.state_dict(), strict=False)
    assert found.missing_keys
    assert not found.unexpected_keys
    images = pixels(2, 1, 28, 28)
    logits = full(images)
    assert_close(logits, net(images))
    gradients = torch.autograd.grad(logits.sum(), [*full.parameters()], allow_unused=True)
    live = {name for name, _ in net.named_parameters()}
    reached = {
        name
        for (name, _), gradient in zip(full.named_parameters(), gradients, strict=True)
        if gradient is not None
    }
    assert reached == live


@pytest.mark.parametrize(("kind", "settings"), SMALL)
def test_softmax_in_the_model(kind, settings):
    net, original = build(kind, **settings), build(kind, **settings, softmax=True)
    images = pixels(2, 1, 28, 28)
    assert_close(original(images), net(images))  # in eval mode, for methods and metrics
    assert_close(original.train()(images), net.train()(images).softmax(1))
    assert net.state_dict().keys() == original.state_dict().keys()


def test_softmax_is_taken_once_of_a_net_with_its_own():
    net = load("xcam:simple_cnn", **MNIST)
    original = load("xcam:simple_cnn", **MNIST, softmax=True)
    original.load_state_dict(net.state_dict())
    images = pixels(2, 1, 28, 28)
    maps = [
        xcam.explain(each, images, 3, "saliency", preset="whitebox") for each in (net, original)
    ]
    assert_close(maps[1].raw, maps[0].raw)


@pytest.mark.parametrize("attention", ["cam", "cbam"])
def test_features_have_the_indices_of_the_plain_net(attention):
    block = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d]
    assert [type(layer) for layer in SimpleCNN(**MNIST, attention=attention).features] == 3 * block


CELLS = {  # of the nets' layers, for MNIST and CIFAR-10
    "stem": (64, 14, 16), "stages.0": (256, 14, 16), "stages.1": (128, 14, 16),
    "stages.2": (512, 7, 8), "stages.3": (256, 7, 8), "stages.4": (1024, 4, 4),
    "stages.5": (512, 4, 4), "tail": (2048, 4, 4), "stages.1.mask": (128, 14, 16),
    "stages.3.mask": (256, 7, 8), "stages.5.mask": (512, 4, 4),
}  # fmt: skip


@pytest.mark.parametrize(("side", "at"), [(28, 1), (32, 2)])
def test_sizes_of_the_stages_of_ran(side, at):
    found = {}
    with torch.device("meta"):
        net, images = RAN(), torch.empty(2, 3, side, side)
    for name in CELLS:
        net.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: found.update({name: output.shape})
        )
    assert net(images).shape == (2, 10)
    assert found == {name: (2, cells[0], cells[at], cells[at]) for name, cells in CELLS.items()}


def test_attention_92_has_more_modules():
    with torch.device("meta"):
        names = [type(stage).__name__[0] for stage in RAN(depth=92).stages]
        shorter = [type(stage).__name__[0] for stage in RAN().stages]
    assert "".join(names) == "RARAARAAA"
    assert "".join(shorter) == "RARARA"


def test_ran_for_imagenet():
    with torch.device("meta"):
        net, images = RAN(1000, stem="imagenet"), torch.empty(1, 3, 224, 224)
        assert net.stages[1](net.stages[0](net.stem(images))).shape == (1, 128, 56, 56)
        assert net.tail(net.stages(net.stem(images))).shape == (1, 2048, 7, 7)
        assert net(images).shape == (1, 1000)


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (SimpleCNN, {"attention": "ran"}, "attention must be 'none', 'cam' or 'cbam', got 'ran'"),
        (RAN, {"depth": 57}, "depth must be 56 or 92, got 57"),
        (RAN, {"stem": "cifar"}, "stem must be 'small' or 'imagenet', got 'cifar'"),
        (RAN, {"width": 2.0}, "width must be even and positive, got 2.0"),
        (RAN, {"num_classes": 0}, "num_classes must be a whole number of at least 1, got 0"),
        (SimpleCNN, {"num_classes": 0}, "num_classes must be a whole number of at least 1, got 0"),
        (SimpleCNN, {"input_size": (32,)}, r"one whole number of pixels or two.*got \(32,\)"),
        (SimpleCNN, {"input_size": "32"}, "one whole number of pixels or two.*got '32'"),
        (SimpleCNN, {"input_size": 32.0}, "one whole number of pixels or two.*got 32.0"),
        (WARN, {"widen": 0}, "widen must be a whole number of at least 1, got 0"),
        (WARN, {"heads": 2.5}, "heads must be a whole number of at least 1, got 2.5"),
        (WARN, {"num_classes": 0}, "num_classes must be a whole number of at least 1, got 0"),
        (WARN, {"penalty": math.nan}, "penalty must be a finite number of at least 0, got nan"),
        (CBAM, {"channels": 8, "reduction": 0}, "reduction must be a whole number.*got 0"),
        (CBAM, {"channels": 8, "reduction": -1}, "reduction must be a whole number.*got -1"),
        (CBAM, {"channels": 8, "reduction": 3.5}, "reduction must be a whole number.*got 3.5"),
        (CBAM, {"channels": 8, "reduction": 2, "kernel_size": 3.0}, "must be odd.*got 3.0"),
        (RAN, {"width": 3}, "width must be even and positive, got 3"),
        (WARN, {"depth": 27}, "depth must be 6n"),
        (WARN, {"heads": 0}, "heads must be a whole number of at least 1, got 0"),
        (CBAM, {"channels": 8}, "reduction must be at most the 8 channels, got 16"),
        (CBAM, {"channels": 32, "kernel_size": 4}, "kernel_size must be odd, such as 7, got 4"),
        (CBAM, {"channels": 32, "form": "bam"}, "form must be 'paper' or 'whitebox', got 'bam'"),
    ],
)
def test_bad_settings_are_refused(kind, settings, words):
    with pytest.raises(ValueError, match=words):
        kind(**settings)


# The forwards by hand: functions of the weights by name.


def normalize(state, name, values):
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    shape = (1, -1, 1, 1) if values.ndim == 4 else (1, -1)
    scaled = (values - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt()
    return scaled * state[f"{name}.weight"].view(shape) + state[f"{name}.bias"].view(shape)


def convolve(state, name, values, **options):
    return F.conv2d(values, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)


def weigh(state, name, features, relu):
    """CBAM by hand: what it returns, and the gate of places."""
    first, second = (
        (state[f"{name}.channel.mlp.{index}.weight"], state[f"{name}.channel.mlp.{index}.bias"])
        for index in (0, 2)
    )
    scores = 0
    for pooled in (features.mean((2, 3)), features.flatten(2).max(2).values):
        hidden = (pooled @ first[0].T + first[1]).clamp(min=0)
        scores = scores + hidden @ second[0].T + second[1]
    refined = features / (1 + (-scores).exp())[:, :, None, None]
    pooled = torch.stack([refined.max(1).values, refined.mean(1)], dim=1)
    place = convolve(state, f"{name}.spatial.conv", pooled, padding=3)
    place = normalize(state, f"{name}.spatial.norm", place)
    gate = 1 / (1 + (-(place.clamp(min=0) if relu else place)).exp())
    return gate * refined, gate


@pytest.mark.parametrize("form", ["paper", "whitebox"])
def test_cbam_agrees_with_convolutions_and_means_of_its_weights(form):
    net, features = build(CBAM, channels=32, form=form), pixels(2, 32, 7, 9) - 0.5
    state = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    expected, _ = weigh(state, "net", features, form == "whitebox")
    assert_close(net(features), expected)


@pytest.mark.parametrize(("form", "lowest"), [("paper", 0.0), ("whitebox", 0.5)])
def test_range_of_the_gate_of_cbam(form, lowest):
    """A ReLU before the sigmoid never suppresses a place below one half."""
    net = build(CBAM, channels=32, form=form)
    gate = net.spatial(20 * (pixels(4, 32, 9, 9) - 0.5))
    assert lowest <= gate.min() < lowest + 0.05
    assert lowest + 0.3 < gate.max() < 1
    assert (gate == 0.5).any() == (form == "whitebox")


def test_simple_cnn_with_cam_is_linear_in_the_means_of_its_features():
    net, images = build(SimpleCNN, **MNIST, attention="cam"), pixels(2, 1, 28, 28)
    state = net.state_dict()
    with torch.no_grad():
        means = net.features(images).mean((2, 3))
    logits = means @ state["classifier.2.weight"].T + state["classifier.2.bias"]
    assert_close(net(images), logits)


def test_cam_explains_simple_cnn_with_cam():
    net, images = load("xcam:simple_cnn", **MNIST, attention="cam"), pixels(2, 1, 28, 28)
    found = xcam.explain(net, images, 3, method="cam", layer="model.features.11")
    with torch.no_grad():
        features = net.model.features(net.normalize(images))
        weights = net.model.classifier[2].weight[3]
    assert_close(found.raw, (features * weights[:, None, None]).sum(1))


def test_layer_that_cam_needs_is_named():
    net, images = load("xcam:simple_cnn", **MNIST, attention="cam"), pixels(2, 1, 28, 28)
    words = r"'model\.features\.10' are not; give layer='model\.features', whose means it reads"
    with pytest.raises(LayerError, match=words):
        xcam.explain(net, images, [3, 5], "cam")


def test_simple_cnn_with_cbam_agrees_with_the_same_steps_on_its_weights():
    net, images = build(SimpleCNN, **MNIST, attention="cbam"), pixels(2, 1, 28, 28)
    state, features = net.state_dict(), images
    for index, layer in enumerate((0, 4, 8)):
        features = convolve(state, f"features.{layer}", features, padding=1)
        features, _ = weigh(state, f"attention.{index}", features, relu=True)
        features = normalize(state, f"features.{layer + 1}", features)
        features = F.max_pool2d(features.clamp(min=0), 2)
    with torch.no_grad():
        assert_close(net(images), net.classifier(features))


def unit(state, name, features, stride=1):
    """A residual unit by hand."""
    mixed = normalize(state, f"{name}.branch.1", convolve(state, f"{name}.branch.0", features))
    mixed = convolve(state, f"{name}.branch.3", mixed.clamp(min=0), stride=stride, padding=1)
    mixed = normalize(state, f"{name}.branch.4", mixed).clamp(min=0)
    mixed = normalize(state, f"{name}.branch.7", convolve(state, f"{name}.branch.6", mixed))
    if f"{name}.projection.0.weight" in state:
        features = convolve(state, f"{name}.projection.0", features, stride=stride)
        features = normalize(state, f"{name}.projection.1", features)
    return (mixed + features).clamp(min=0)


def mask(state, name, features, skips):
    """The mask by hand: three sizes at most, each the half of the one before, rounded up."""

    def halve(values):
        return F.max_pool2d(values, 2, ceil_mode=True)

    def enlarge(values, like):
        return F.interpolate(values, like.shape[2:], mode="bilinear", align_corners=True)

    if skips == 0:
        small = unit(state, f"{name}.unit", unit(state, f"{name}.unit", halve(features)))
    else:
        kept = unit(state, f"{name}.unit", halve(features))
        if skips == 1:
            below = unit(state, f"{name}.unit", unit(state, f"{name}.unit", halve(kept)))
        else:
            lower = unit(state, f"{name}.unit", halve(kept))
            below = unit(state, f"{name}.unit", unit(state, f"{name}.unit", halve(lower)))
            below = unit(state, f"{name}.unit", enlarge(below, lower) + lower)
        small = unit(state, f"{name}.unit", enlarge(below, kept) + kept)
    large = enlarge(small, features)
    twice = convolve(state, f"{name}.conv", convolve(state, f"{name}.conv", large))
    return 1 / (1 + (-twice).exp())


@pytest.mark.parametrize(("in_channels", "side"), [(1, 28), (3, 32)])
def test_ran_agrees_with_the_same_steps_on_its_weights(in_channels, side):
    net = build(RAN, in_channels=in_channels, width=8)
    images = pixels(2, in_channels, side, side)
    state = net.state_dict()
    features = normalize(state, "stem.1", convolve(state, "stem.0", images, padding=2))
    features = F.max_pool2d(features.clamp(min=0), 2)
    for index, skips in enumerate((2, 1, 0)):
        features = unit(state, f"stages.{2 * index}", features, stride=2 if index else 1)
        name = f"stages.{2 * index + 1}"
        before = unit(state, f"{name}.pre", features)
        trunk = unit(state, f"{name}.trunk.1", unit(state, f"{name}.trunk.0", before))
        weighted = (1 + mask(state, f"{name}.mask", before, skips)) * trunk
        features = unit(state, f"{name}.post", weighted)
    for index in range(3):
        features = unit(state, f"tail.{index}", features)
    logits = features.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]
    assert_close(net(images), logits, rtol=1e-4, atol=1e-5)


def block(state, name, features, stride):
    """A pre-activation block by hand: what it gives, and its activated input."""
    activated = normalize(state, f"{name}.activation.0", features).clamp(min=0)
    mixed = convolve(state, f"{name}.branch.0", activated, stride=stride, padding=1)
    mixed = normalize(state, f"{name}.branch.1", mixed).clamp(min=0)
    mixed = convolve(state, f"{name}.branch.4", mixed, padding=1)
    if f"{name}.projection.weight" in state:
        features = convolve(state, f"{name}.projection", features, stride=stride)
    return mixed + features, activated


def attend(state, name, features, classes):
    """A hypothesis and its masks by hand, a head at a time."""
    hypotheses, scores, masks = [], [], []
    for head in range(state[f"{name}.masks.conv.weight"].shape[0]):
        scored = convolve(state, f"{name}.masks.conv", features, padding=1)[:, head]
        chosen = scored.flatten(1).softmax(1).view_as(scored)
        outputs = convolve(state, f"{name}.output", features, padding=1)
        outputs = outputs[:, head * classes : (head + 1) * classes]
        hypotheses.append((outputs * chosen[:, None]).sum((2, 3)))
        score = convolve(state, f"{name}.score", features, padding=1)[:, head]
        scores.append((score * chosen).sum((1, 2)))
        masks.append(chosen)
    weights = torch.stack(scores, 1).tanh().softmax(1)
    return sum(weights[:, [k]] * h for k, h in enumerate(hypotheses)), torch.stack(masks, 1)


def rectify(state, images, classes=5):
    """WARN-16-1 by hand: its log-probabilities, and the masks by group."""
    features = normalize(state, "stem.1", convolve(state, "stem.0", images, padding=1))
    features, inputs = features.clamp(min=0), []
    for group in range(3):
        features, entered = block(state, f"groups.{group}.first", features, 2 if group else 1)
        features, _ = block(state, f"groups.{group}.rest.0", features, 1)
        inputs.append(entered)
    last = normalize(state, "norm.0", features).clamp(min=0)
    found = [
        attend(state, f"attention.{index}", activated, classes)
        for index, activated in enumerate([*inputs[1:], last])
    ]
    pooled = last.mean((2, 3))
    own = pooled @ state["fc.weight"].T + state["fc.bias"]
    gates = normalize(state, "gates.1", pooled @ state["gates.0.weight"].T).tanh().softmax(1)
    hypotheses = [found[2][0], found[1][0], found[0][0], own]
    logs = sum(gates[:, [k]] * h.log_softmax(1) for k, h in enumerate(hypotheses))
    return logs, [masks for _, masks in found]


@pytest.fixture(scope="module")
def warn_net():
    return build(WARN, num_classes=5, depth=16, widen=1, heads=3)


def test_warn_agrees_with_the_same_steps_on_its_weights(warn_net):
    images = pixels(2, 3, 20, 20)
    logs, _ = rectify(warn_net.state_dict(), images)
    assert_close(warn_net(images), logs, rtol=1e-4, atol=1e-5)


def test_loss_of_warn_is_cross_entropy_and_overlap_of_masks(warn_net):
    images, labels = pixels(2, 3, 20, 20), torch.tensor([3, 1])
    logs, masks = rectify(warn_net.state_dict(), images)
    overlaps = []
    for each in masks:
        small = F.avg_pool2d(each, 2).flatten(2)
        products = [
            (small[:, j] * small[:, k]).sum(1) ** 2 if j != k else torch.zeros(2)
            for j in range(3)
            for k in range(3)
        ]
        overlaps.append(torch.stack(products).mean())
    expected = -(logs[0, 3] + logs[1, 1]) / 2 + 0.001 * sum(overlaps) / 3
    loss, found = warn_net.training_loss(images, labels)
    assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert_close(found, warn_net(images))
    assert sum(overlaps) > 0
    shares = F.one_hot(labels, 5).float()
    assert_close(warn_net.training_loss(images, shares)[0], loss)


def test_masks_of_warn_sum_to_one(warn_net):
    features = pixels(2, 16, 6, 7)
    assert_close(warn_net.attention[0].masks(features).sum((2, 3)), torch.ones(2, 3))


def test_penalty_of_warn_is_highest_for_equal_masks():
    net = build(WARN, depth=10, widen=1, heads=2, penalty=1.0)
    images, labels = pixels(2, 3, 16, 16), torch.tensor([0, 1])
    apart = net.training_loss(images, labels)[0] - F.nll_loss(net(images), labels)
    with torch.no_grad():
        for attention in net.attention:
            attention.masks.conv.weight[1] = attention.masks.conv.weight[0]
    equal = net.training_loss(images, labels)[0] - F.nll_loss(net(images), labels)
    assert 0 < apart < equal


def test_warn_trains_on_images_of_five_pixels_at_least(warn_net):
    images, labels = pixels(2, 3, 5, 7), torch.tensor([0, 1])
    assert warn_net.training_loss(images, labels)[0].isfinite()
    with pytest.raises(ValueError, match=r"at least 5 pixels a side to train on, got \(4, 7\)"):
        warn_net.training_loss(images[:, :, :4], labels)
    with pytest.raises(ValueError, match=r"^warn .*its log-probabilities are of one class"):
        warn_net.training_loss(images, F.one_hot(labels, 5).bool())


@pytest.mark.parametrize(
    ("name", "settings", "layer"),
    [
        ("simple_cnn", {**MNIST, "attention": "cbam"}, None),
        ("ran", {"in_channels": 1, "width": 4}, None),
        ("warn", {"in_channels": 1, "depth": 10, "widen": 1}, "norm"),
    ],
)
def test_they_are_explained_and_saved_like_any_other(name, settings, layer, tmp_path):
    net, images = load(f"xcam:{name}", **settings), pixels(2, 1, 28, 28)
    layer = layer and f"model.{layer}"
    first, second = (xcam.explain(net, images, k, layer=layer) for k in (0, 1))
    assert first.maps.isfinite().all()
    assert not torch.allclose(first.maps, second.maps)
    xcam.save(net, tmp_path / "net.safetensors")
    assert_close(xcam.load(tmp_path / "net.safetensors")(images), net(images))
