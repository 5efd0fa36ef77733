"""Heads that autograd cannot pass: the default layer is found, and what can be had is right."""

import pytest
import torch
from nets import pictures
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.models import default_layer
from xcam.models.toy import SmallCNN, TokenNet

WITHOUT_GRADIENTS = ("eigencam", "scorecam", "ablationcam", "conv_output")


class Decoding(nn.Module):
    """Scores a cell, decoded as detectors do, in place or not; or tokens, before their mean."""

    def __init__(self, inplace, tokens=False):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
            self.head, self.inplace, self.tokens = nn.Conv2d(8, 5, 1), inplace, tokens
            self.norm = nn.LayerNorm(8)
        self.eval()

    def forward(self, images):
        features = self.features(images)
        if self.tokens:
            features = self.norm(features.movedim(1, 3)).movedim(3, 1)
        scores = self.head(features).sigmoid()
        if self.inplace:
            scores[:, :2] = scores[:, :2] * 2
            scores[:, 2:4] = scores[:, 2:4] ** 2
        else:
            scores = torch.cat([scores[:, :2] * 2, scores[:, 2:4] ** 2, scores[:, 4:]], 1)
        return scores.mean((2, 3))


class Squaring(TokenNet):
    """Reads the class token, and works in place on what its backward pass needs."""

    def __init__(self, inplace):
        super().__init__()
        self.inplace = inplace

    def forward(self, images):
        scores = super().forward(images).sigmoid()
        return scores.mul_(scores) if self.inplace else scores * scores


class ByNumpy(SmallCNN):
    """Runs without a graph only."""

    def forward(self, images):
        return torch.from_numpy(super().forward(images).numpy().copy())


class Quantized(nn.Sequential):
    def __init__(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(
                nn.Conv2d(3, 8, 3, 2, 1),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(8, 5),
            )
        self.eval()


@pytest.fixture
def anomalies():
    with torch.autograd.set_detect_anomaly(True):
        yield
        assert torch.is_anomaly_enabled()


@pytest.mark.usefixtures("anomalies")
@pytest.mark.parametrize("method", ["gradcam", "eigencam", "guided_gradcam"])
@pytest.mark.parametrize(("net", "layer"), [(SmallCNN, "features.6"), (TokenNet, "blocks.1.norm1")])
@pytest.mark.filterwarnings("ignore:Anomaly Detection", "ignore:.*the model calls no ReLU")
def test_default_layer_while_autograd_looks_for_anomalies(net, layer, method):
    got = xcam.explain(net(), pictures(1, size=16), 1, method)
    assert got.method.layer == layer
    with torch.autograd.set_detect_anomaly(False):
        assert torch.equal(got.raw, xcam.explain(net(), pictures(1, size=16), 1, method).raw)


@pytest.mark.parametrize("method", [*WITHOUT_GRADIENTS, "gradcam", "hirescam", "guided_backprop"])
@pytest.mark.parametrize("tokens", [False, True])
def test_head_that_works_in_place_is_explained_as_one_that_does_not(method, tokens):
    images = pictures(2)
    got, expected = (
        xcam.explain(Decoding(inplace, tokens), images, 1, method) for inplace in (True, False)
    )
    assert repr(got.method) == repr(expected.method)
    assert_close(got.raw, expected.raw)


@pytest.mark.parametrize("method", ["gradcam", "eigencam", "integrated_gradients"])
def test_class_token_read_in_place(method):
    images = pictures(2, size=16)
    got, expected = (
        xcam.explain(Squaring(inplace), images, 1, method) for inplace in (True, False)
    )
    assert repr(got.method) == repr(expected.method)
    if method != "integrated_gradients":
        assert got.method.layer == "blocks.1.norm1"
    assert_close(got.raw, expected.raw)


@pytest.mark.parametrize("method", WITHOUT_GRADIENTS)
def test_net_that_runs_without_a_graph_only(method):
    net, images = ByNumpy(), pictures(2, size=16)
    assert default_layer(net, images) == "features.6"
    expected = xcam.explain(SmallCNN(), images, 1, method)
    assert_close(xcam.explain(net, images, 1, method).raw, expected.raw)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("method", WITHOUT_GRADIENTS)
def test_quantized_head(method):
    net, images = torch.ao.quantization.quantize_dynamic(Quantized(), {nn.Linear}), pictures(2)
    got = xcam.explain(net, images, 1, method)
    assert got.method.layer == "1"
    assert_close(got.raw, xcam.explain(net, images, 1, method, layer="1").raw)
