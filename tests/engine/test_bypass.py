"""Layers that the user names: streams of the image around them are said, branches are not."""

import warnings

import pytest
import torch
import torchvision
from nets import pictures
from torch import nn

import xcam
from xcam.engine.bypass import describe_stream
from xcam.errors import XcamWarning
from xcam.models.toy import TokenNet


def trunk(channels=3, width=8):
    """Make a stem and an inline residual."""
    return nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1), nn.ReLU(), Residual(width))


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features):
        return features + self.conv(features)


class Streams(nn.Module):
    """RGB and depth, joined by the classifier or by a convolution before it."""

    def __init__(self, fuse=False, detach=False):
        super().__init__()
        torch.manual_seed(0)
        self.rgb, self.depth, self.fc = trunk(3), trunk(1), nn.Linear(16, 4)
        self.fuse, self.detach = nn.Conv2d(16, 16, 1) if fuse else nn.Identity(), detach

    def forward(self, images):
        depth = self.depth(images[:, 3:])
        joined = torch.cat([self.rgb(images[:, :3]), depth.detach() if self.detach else depth], 1)
        return self.fc(self.fuse(joined).relu().mean((2, 3)))


class Pair(nn.Module):
    """Two pictures through one trunk, then a head for each."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.left, self.right = trunk(), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, pair):
        left, right = (self.trunk(half) for half in (pair[:, :3], pair[:, 3:]))
        return (self.left(left) * self.right(right)).mean((2, 3))


class Ensemble(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.nets = nn.ModuleList([Branches(), Branches()])

    def forward(self, images):
        return sum(net(images) for net in self.nets)


class Branches(nn.Module):
    """A stem, then two branches, then a gate of the pooled features."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = trunk(), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 3, 1, 1)
        self.gate, self.fc = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, images):
        features = self.stem((images - images.mean()) / images.std())
        joined = torch.cat([self.left(features), self.right(features)], 1)
        gated = joined * self.gate(features.mean((2, 3))).sigmoid()[:, :, None, None]
        return self.fc(gated.mean((2, 3)))


class Bound(nn.Module):
    """Two pictures with a trunk each, the second one fixed."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = trunk(), trunk()
        self.register_buffer("other", pictures(1, seed=3))

    def forward(self, images):
        pair = torch.cat([images, self.other.expand(len(images), -1, -1, -1)], 1)
        return (self.left(pair[:, :3]) - self.right(pair[:, 3:])).square().mean((2, 3))


def run_notes(net, channels, layer, method="gradcam"):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        got = xcam.explain(net.eval(), pictures(2, channels), 1, method, layer=layer)
    texts = [note.text for note in got.notes if note.image is None]
    assert [str(one.message) for one in seen if one.category is XcamWarning] == texts
    return texts


@pytest.mark.parametrize(
    ("make", "channels", "layer", "remedy"),
    [
        (Streams, 4, "depth", "explain layer 'rgb' as well, or"),
        (Streams, 4, "rgb.2.conv", "explain layer 'depth' as well, or"),
        (lambda: Streams(fuse=True), 4, "rgb.0", "name layer='fuse', which every path passes, or"),
        (lambda: Streams(detach=True), 4, "rgb", "so its map is incomplete; use a method that"),
        (Pair, 6, "left", "name layer='trunk', which every path passes, or"),
        (Ensemble, 3, "nets.0.left", "explain layer 'nets.1"),
    ],
)
@pytest.mark.parametrize("method", ["gradcam", "eigencam"])
def test_stream_around_a_named_layer_is_said_once(make, channels, layer, remedy, method):
    (text,) = run_notes(make(), channels, layer, method)
    assert text.startswith(f"part of the image's effect on the score bypasses layer {layer!r}, so")
    assert remedy in text


@pytest.mark.parametrize(
    ("make", "channels", "layers"),
    [
        (lambda: Streams(fuse=True), 4, ["fuse"]),
        (Branches, 3, ["stem.0", "stem.2.conv", "left", "right"]),
        (Bound, 3, ["left", "left.2.conv"]),
        (TokenNet, 3, ["blocks.0", "blocks.1"]),
    ],
)
def test_branch_that_the_user_asks_for_is_not_remarked(make, channels, layers):
    net = make()
    assert not [text for layer in layers for text in run_notes(net, channels, layer)]


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet18", ["layer3", "layer4.1.conv2", "layer2.0.downsample.0"]),
        ("googlenet", ["inception4a.branch2.1.conv", "conv1.conv"]),
    ],
)
def test_parts_of_common_nets_are_not_remarked(name, layers):
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    net = torchvision.models.get_model(name, weights=None, **options).eval()
    net.register_forward_pre_hook(lambda *_: pytest.fail("a pass of the model"))
    for layer in layers:
        assert describe_stream(net, torch.rand(1, 3, 64, 64), net.get_submodule(layer)) is None


def test_streams_are_searched_once_for_a_layer():
    net, passes = Streams().eval(), []
    net.fc.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    counts = []
    for _ in range(3):
        with pytest.warns(XcamWarning, match="bypasses layer 'depth'"):
            xcam.explain(net, pictures(2, 4), 1, "eigencam", layer="depth")
        counts.append(sum(passes))
        passes.clear()
    assert counts[1:] == [2, 2]
