"""Streams without a gradient: what the graph does not show of how scores depend on an image."""

import warnings

import pytest
import torch
from nets import pictures
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.engine.dataflow import GraphlessUse, depends_around
from xcam.engine.layers import find_default_layer
from xcam.errors import XcamWarning
from xcam.models.toy import GapNet, SmallCNN


class Frozen(nn.Module):
    """A trained stream, and a frozen one whose values keep no gradient."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh())
            self.last = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
            self.frozen = nn.Conv2d(3, 8, 3, 2, 1)
            self.fc = nn.Linear(16, 5)
        self.eval()

    def freeze(self, images, features):
        with torch.no_grad():
            return self.frozen(images).mean((2, 3))

    def forward(self, images):
        features = self.stem(images)
        known = self.freeze(images, features)
        return self.fc(torch.cat([self.last(features).mean((2, 3)), known], 1))


class Detached(Frozen):
    def freeze(self, images, features):
        return self.frozen(images).mean((2, 3)).detach()


class Data(Frozen):
    def freeze(self, images, features):
        return images.data.mean((2, 3)).repeat(1, 3)[:, :8]


class Counted(Frozen):
    """A share of pixels that are bright, which has no gradient."""

    def freeze(self, images, features):
        return (images > 0.4).float().mean((1, 2, 3))[:, None].expand(-1, 8)


class Numpy(Frozen):
    """Values that the meta device does not have."""

    def freeze(self, images, features):
        return torch.from_numpy(images.detach().numpy() * 2).mean((2, 3)).repeat(1, 3)[:, :8]


class FromStem(Frozen):
    def freeze(self, images, features):
        with torch.no_grad():
            return features.mean((2, 3)).repeat(1, 2)[:, :8]


class Constant(Frozen):
    """A frozen part that reads the image's shape, and values that cancel out."""

    def freeze(self, images, features):
        with torch.no_grad():
            return self.frozen(torch.ones_like(images) + 0 * images).mean((2, 3))


class AllFrozen(Frozen):
    """A frozen backbone: all that the scores know of the image passes the layer."""

    def forward(self, images):
        with torch.no_grad():
            features = self.last(self.stem(images))
        return self.fc(features.mean((2, 3)).repeat(1, 2))


@pytest.mark.parametrize("net", [Frozen, Detached, Data, Counted, Numpy])
@pytest.mark.parametrize("method", ["gradcam", "eigencam", "scorecam"])
def test_stream_without_a_gradient_is_noted(net, method):
    model, images = net(), pictures(2)
    with pytest.warns(XcamWarning, match="bypasses the default layer 'last', .*; use a method th"):
        got = xcam.explain(model, images, 1, method)
    assert got.method.layer == "last"
    with torch.no_grad(), model.last.register_forward_hook(lambda *_: torch.ones(1, 8, 16, 16)):
        scores = model(images[:1]), model(images[:1] * 0.5)
    assert (scores[0] - scores[1]).abs().max() > 1e-3  # as the note says


def test_layer_that_also_a_stream_without_a_gradient_passes_is_named():
    model, images = FromStem(), pictures(2)
    with pytest.warns(XcamWarning, match=r"'last', .*; name layer='stem', which every path pa"):
        xcam.explain(model, images, 1)
    leaf = model.stem(images).detach().requires_grad_()
    known = leaf.detach().mean((2, 3)).repeat(1, 2)[:, :8]
    score = model.fc(torch.cat([model.last(leaf).mean((2, 3)), known], 1))[:, 1]
    (gradient,) = torch.autograd.grad(score.sum(), leaf)
    expected = (gradient.mean((2, 3), keepdim=True) * leaf.detach()).sum(1)
    assert_close(xcam.explain(model, images, 1, layer="stem").raw, expected)


@pytest.mark.parametrize("net", [Constant, AllFrozen])
def test_frozen_part_that_adds_nothing_is_not_noted(net):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert xcam.explain(net(), pictures(2), 1, "eigencam").method.layer == "last"


def test_net_with_a_whole_graph_takes_no_pass_with_values():
    for net in (GapNet(), SmallCNN(inplace=True)):
        seen = []
        net.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].device.type))
        find_default_layer(net, pictures(2))
        assert seen == []


def test_use_without_a_graph_is_found():
    def run(operate):
        image = torch.empty(1, 3, 4, 4, device="meta", requires_grad=True).clone()
        with GraphlessUse(image) as watch:
            operate(image)
        return watch.found

    def write(image):
        buffer = torch.empty(1, 6, 4, 4, device="meta")
        with torch.no_grad():
            buffer[:, :3].copy_(image)
        return buffer.sum()

    assert run(lambda image: image.detach() + 1)
    assert run(lambda image: image * (image > 0).float())
    assert run(write)
    assert not run(lambda image: image * torch.ones_like(image) + image.new_zeros(4))
    assert not run(lambda image: image.detach())  # nothing is made from it
    assert not run(lambda image: torch.max_pool2d(image.relu(), 2).mean((2, 3)))


def test_dependence_around_several_layers():
    model, images = Detached(), pictures(2)
    assert depends_around(model, images, ["last"])
    assert depends_around(model, images, ["frozen"])
    assert not depends_around(model, images, ["last", "frozen"])
    assert not depends_around(model, torch.full_like(images, 0.5), ["last", "frozen"])
    assert depends_around(model, torch.full_like(images, 0.5), ["last"])
