"""The CAM family against closed forms, plain loops over its formulas, and each other."""

import math

import pytest
import torch
from torch import nn

import xcam
from xcam.engine import capture
from xcam.methods import CAM, ConvOutput, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from xcam.methods.cam.features import read
from xcam.models.toy import GapNet, SmallCNN, TokenNet

TARGETS = [0, 3, 1, 4]


@pytest.fixture(scope="module")
def images():
    return torch.randn(4, 3, 16, 24, generator=torch.Generator().manual_seed(5))


def raw(net, images, method, target=TARGETS):
    return xcam.explain(net, images, target, method).raw


def features(net, images, layer="features", target=TARGETS):
    """Activations and gradients by plain autograd, in float64."""
    with capture(net, layer) as tap:
        output = tap(images)
        gradient = tap.gradient(output[range(len(images)), target])
        return tap.activation.detach().double(), gradient.double()


class TopGrid(nn.Module):
    """Features are the image's channels; the logits read each place with its own weight."""

    def __init__(self, weight):
        super().__init__()
        self.features = nn.Identity()
        self.weight = nn.Parameter(weight)  # (K, C, H, W)

    def forward(self, images):
        return torch.einsum("bchw,kchw->bk", self.features(images), self.weight)


@pytest.fixture(scope="module")
def grid():
    """A net with a hand-made gradient that differs from place to place, and positive features."""
    generator = torch.Generator().manual_seed(3)
    net = TopGrid(torch.randn(5, 6, 4, 5, generator=generator)).eval()
    return net, torch.rand(4, 6, 4, 5, generator=generator)


class ChannelsLast(nn.Module):
    """GapNet with its features handed on as (B, h, w, C), the way Swin does."""

    class Turn(nn.Module):
        def forward(self, features):
            return features.permute(0, 2, 3, 1)

    def __init__(self, net):
        super().__init__()
        self.inner, self.turn = net.features, self.Turn()
        self.fc = net.fc
        # Not applied, so that the features stay GapNet's: it says that 12 is a width of channels.
        self.norm = nn.LayerNorm(12)

    def forward(self, images):
        return self.fc(self.turn(self.inner(images)).mean((1, 2)))


@pytest.mark.parametrize("relu", [True, False])
def test_cam_gradcam_and_hirescam_are_one_map_behind_pooling(images, relu):
    net = GapNet(relu=relu)
    cam = raw(net, images, CAM())
    places = cam.shape[1] * cam.shape[2]
    assert cam.amin() < 0 < cam.amax()
    torch.testing.assert_close(places * raw(net, images, GradCAM()), cam, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(places * raw(net, images, HiResCAM()), cam, rtol=1e-5, atol=1e-5)


def test_gradcam_weights_are_finite_differences(images):
    net = SmallCNN().double()
    x = images[:1].double()
    activation = net.features(x).detach()
    step, weights = 1e-5, []
    with torch.no_grad():
        for channel in range(activation.shape[1]):
            nudge = torch.zeros_like(activation)
            nudge[:, channel] = step  # all places at once: the sum of the places' derivatives
            scores = [
                net.classifier(net.pool(activation + sign * nudge).flatten(1))[0, 3]
                for sign in (1, -1)
            ]
            weights.append((scores[0] - scores[1]) / (2 * step) / activation[0, 0].numel())
    expected = sum(w * a for w, a in zip(weights, activation[0], strict=True))
    got = raw(net, x, GradCAM(layer="features"), target=3)
    torch.testing.assert_close(got[0], expected.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("normalize_alpha", [False, True])
@pytest.mark.parametrize("epsilon", [0.0, 1e-2])
def test_gradcam_plusplus_is_its_formula(grid, epsilon, normalize_alpha):
    net, images = grid
    activation, gradient = features(net, images)
    expected = torch.zeros(4, 4, 5, dtype=torch.float64)
    for b in range(4):
        for k in range(6):
            total, weight, alphas = activation[b, k].sum(), 0.0, 0.0
            for g in gradient[b, k].flatten().tolist():
                alpha = g**2 / (2 * g**2 + total * g**3 + epsilon)
                alphas += alpha
                weight += alpha * max(g, 0)
            expected[b] += weight / (alphas if normalize_alpha else 1) * activation[b, k]
    method = GradCAMPlusPlus(layer="features", epsilon=epsilon, normalize_alpha=normalize_alpha)
    # Where a channel's signed α nearly cancel, dividing by their sum magnifies rounding.
    tolerance = {"rtol": 1e-4, "atol": 1e-3} if normalize_alpha else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(raw(net, images, method), expected.float(), **tolerance)


def test_gradcam_plusplus_keeps_tiny_gradients():
    """For g → 0, α → 1/2: squares of such gradients are 0 in float32."""
    net = TopGrid(torch.full((2, 3, 4, 4), 1e-30)).eval()
    images = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    got = raw(net, images, GradCAMPlusPlus(layer="features"), target=0)
    torch.testing.assert_close(got * 1e30, 16 * images.sum(1) / 2, rtol=1e-5, atol=0)


def test_gradcam_plusplus_ignores_what_lowers_the_score():
    weight = torch.full((2, 2, 4, 4), -1.0)
    weight[:, 1] = 0
    for normalize_alpha in (False, True):
        method = GradCAMPlusPlus(layer="features", normalize_alpha=normalize_alpha)
        assert raw(TopGrid(weight), torch.rand(1, 2, 4, 4), method, 0).abs().max() == 0


def test_xgradcam_has_the_mass_of_hirescam(grid):
    net, images = grid
    xgrad = raw(net, images, XGradCAM(layer="features"))
    hires = raw(net, images, HiResCAM(layer="features"))
    torch.testing.assert_close(xgrad.sum((1, 2)), hires.sum((1, 2)), rtol=1e-4, atol=1e-5)
    assert (xgrad - hires).abs().max() > 0.1


def test_xgradcam_is_its_formula_and_gives_silent_channels_nothing(grid):
    net, images = grid
    images = images.clone()
    images[:, 2] = 0
    activation, gradient = features(net, images)
    expected = torch.zeros(4, 4, 5, dtype=torch.float64)
    for b in range(4):
        for k in (0, 1, 3, 4, 5):
            share = activation[b, k] / activation[b, k].sum()
            expected[b] += (share * gradient[b, k]).sum() * activation[b, k]
    got = raw(net, images, XGradCAM(layer="features"))
    torch.testing.assert_close(got, expected.float(), rtol=1e-4, atol=1e-5)


def test_xgradcam_weights_stay_means_of_the_gradients():
    """One channel that nearly cancels: its quotient would be 100 times its largest gradient."""
    images = torch.tensor([[[[1.0, -1.0], [0.01, 0.0]], [[0.5, 0.2], [0.0, 0.1]]]])
    weight = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]], [[0.1, 0.2], [0.3, 0.4]]]])
    net = TopGrid(weight).eval()
    second = images[0, 1] * (0.05 + 0.04 + 0.04) / 0.8
    loose = raw(net, images, XGradCAM(layer="features", bounded=False), 0)
    torch.testing.assert_close(loose[0], 100.5 * images[0, 0] + second, rtol=1e-4, atol=1e-4)
    bounded = raw(net, images, XGradCAM(layer="features"), 0)
    torch.testing.assert_close(bounded[0], 1.0 * images[0, 0] + second)


def test_hirescam_adds_up_to_the_logit_of_a_linear_rest(grid):
    net, images = grid
    e = xcam.explain(net, images, TARGETS, HiResCAM(layer="features"))
    torch.testing.assert_close(e.raw.sum((1, 2)), e.logits[range(4), TARGETS])


def test_layercam_is_its_formula(grid):
    net, images = grid
    activation, gradient = features(net, images)
    expected = torch.zeros(4, 4, 5, dtype=torch.float64)
    for b in range(4):
        for i in range(4):
            for j in range(5):
                places = zip(gradient[b, :, i, j], activation[b, :, i, j], strict=True)
                expected[b, i, j] = sum(max(g, 0) * a for g, a in places)
    got = raw(net, images, LayerCAM(layer="features"))
    torch.testing.assert_close(got, expected.float(), rtol=1e-5, atol=1e-5)


def test_layercam_scales_shallow_maps(grid):
    net, images = grid
    plain = raw(net, images, LayerCAM(layer="features"))
    scaled = raw(net, images, LayerCAM(layer="features", gamma=2.0))
    highest = plain.amax((1, 2), keepdim=True)
    torch.testing.assert_close(scaled, torch.tanh(2 * plain / highest))
    assert scaled.amax() == pytest.approx(math.tanh(2))
    negative = raw(net, -images, LayerCAM(layer="features", gamma=2.0))
    assert negative.abs().max() == 0  # nothing positive to scale by


def test_conv_output_is_the_mean_channel(images):
    net = SmallCNN()
    with torch.no_grad():
        expected = net.features(images).mean(1)
    got = raw(net, images, ConvOutput(layer="features"))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


NAMES = [
    "conv_output",
    "eigencam",
    "eigengradcam",
    "gradcam",
    "gradcam_plusplus",
    "hirescam",
    "layercam",
    "xgradcam",
]


@pytest.mark.parametrize("name", ["cam", *NAMES])
def test_relu_cuts_the_map_at_zero(images, name):
    net = GapNet(relu=False)
    signed = raw(net, images, name)
    assert signed.amin() < 0
    cut = xcam.explain(net, images, TARGETS, name, relu=True).raw
    torch.testing.assert_close(cut, signed.relu())


@pytest.mark.parametrize("name", ["cam", *NAMES])
def test_channels_last_features_give_the_same_map(images, name):
    net = GapNet(seed=2)
    got = xcam.explain(ChannelsLast(net), images, TARGETS, name, layer="turn")
    expected = raw(net, images, name)
    span = float(expected.amax() - expected.amin())
    torch.testing.assert_close(got.raw, expected, rtol=0, atol=1e-5 * span)


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_read_as_their_grid(images, name):
    """A map of tokens is the map of the same numbers laid out as (B, C, h, w)."""

    class Patches(nn.Module):
        """TokenNet with the patches behind a norm handed through a module as a map."""

        def __init__(self, net):
            super().__init__()
            self.net, self.grid = net, nn.Identity()
            net.blocks[1].norm1.register_forward_hook(self.relay)

        def forward(self, images):
            return self.net(images)

        def relay(self, _module, _inputs, tokens):
            patches = self.grid(tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 6)))
            return torch.cat([tokens[:, :1], patches.flatten(2).transpose(1, 2)], 1)

    tokens = xcam.explain(TokenNet(), images, TARGETS, name, layer="blocks.1.norm1").raw
    assert tokens.shape == (4, 4, 6)
    grid = xcam.explain(Patches(TokenNet()).eval(), images, TARGETS, name, layer="grid").raw
    span = float(grid.amax() - grid.amin())
    torch.testing.assert_close(tokens, grid, rtol=0, atol=1e-5 * span)


def test_channels_are_summed_in_float32_at_least(images):
    for dtype, read_as in [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)]:
        assert read(images.to(dtype), images, nn.Identity()).dtype == read_as


@pytest.mark.parametrize("name", ["cam", *NAMES])
def test_bf16_follows_full_precision(images, name):
    net = GapNet()
    full = raw(net, images, name)
    half = xcam.explain(net, images, TARGETS, name, precision="bf16").raw
    assert half.dtype == torch.float32
    assert (half - full).abs().max() < 0.05 * (full.amax() - full.amin())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: GradCAMPlusPlus(epsilon=-1.0), "epsilon .* got -1.0"),
        (lambda: GradCAMPlusPlus(epsilon=math.nan), "epsilon .* got nan"),
        (lambda: LayerCAM(gamma=0.0), "gamma .* got 0.0"),
        (lambda: LayerCAM(gamma=math.inf), "gamma .* got inf"),
    ],
)
def test_bad_fields_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
