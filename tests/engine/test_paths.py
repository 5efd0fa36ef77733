"""Nets whose score depends on the image by several ways, or through several calls of a layer."""

import pytest
import torch
from nets import pictures
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.engine.paths import Cut, cut_layer
from xcam.errors import XcamWarning
from xcam.models import default_layer
from xcam.models.toy import GapNet, SmallCNN, TokenNet


def seeded(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()


def trunk(channels=3):
    return nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU())


class Siamese(nn.Module):
    """Two pictures in one tensor, through one trunk."""

    def __init__(self):
        super().__init__()
        self.trunk, self.fc = trunk(), nn.Linear(16, 4)

    def forward(self, pair):
        pooled = [self.trunk(one).mean((2, 3)) for one in (pair[:, :3], pair[:, 3:])]
        return self.fc(torch.cat(pooled, 1))


class Bound(nn.Module):
    """A siamese net with one picture bound, before or behind the one that is explained."""

    def __init__(self, net, other, at):
        super().__init__()
        self.net, self.at = net, at
        self.register_buffer("other", other)

    def forward(self, images):
        parts = [images]
        parts.insert(self.at, self.other.expand(len(images), -1, -1, -1))
        return self.net(torch.cat(parts, 1))


class Triplet(nn.Module):
    """Distances to two bound pictures; the one that is explained is embedded between them."""

    def __init__(self):
        super().__init__()
        self.trunk = trunk()
        self.register_buffer("first", pictures(1, seed=5))
        self.register_buffer("last", pictures(1, seed=6))

    def embed(self, features):
        return features.square().mean((2, 3))

    def scores(self, first, features, last):
        anchor = self.embed(features)
        far = [(anchor - self.embed(one)).square().sum(1) for one in (first, last)]
        return torch.stack([far[1] - far[0], far[0]], 1)

    def forward(self, images):
        return self.scores(self.trunk(self.first), self.trunk(images), self.trunk(self.last))


class TwoTrunks(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.fc = trunk(), trunk(), nn.Linear(16, 4)

    def forward(self, pair):
        parts = self.left(pair[:, :3]), self.right(pair[:, 3:])
        return self.fc(torch.cat(parts, 1).mean((2, 3)))


class RGBD(nn.Module):
    def __init__(self):
        super().__init__()
        self.rgb, self.depth, self.fc = trunk(), trunk(1), nn.Linear(16, 4)

    def forward(self, images):
        parts = self.rgb(images[:, :3]), self.depth(images[:, 3:])
        return self.fc(torch.cat(parts, 1).mean((2, 3)))


class InlineResidual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.last, self.fc = trunk(), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, images):
        features = self.stem(images)
        return self.fc((features + self.last(features)).mean((2, 3)))


class TwoScales(nn.Module):
    """The classifier reads the means of two stages."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.fc = trunk(), trunk(8), nn.Linear(16, 4)

    def forward(self, images):
        features = self.first(images)
        pooled = [one.mean((2, 3)) for one in (features, self.second(features))]
        return self.fc(torch.cat(pooled, 1))


def run_notes(explanation):
    return [note.text for note in explanation.notes if note.image is None]


def gradcam_by_hand(features, tail, target):
    leaf = features.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(tail(leaf)[:, target].sum(), leaf)
    return (gradient.mean((2, 3), keepdim=True) * leaf.detach()).sum(1)


@pytest.mark.parametrize("layer", [None, "net.trunk"])
@pytest.mark.parametrize("at", [0, 1])
def test_siamese_net_with_one_picture_bound_is_explained_by_the_other(at, layer):
    net, images = seeded(Siamese), pictures(2)
    model = Bound(net, pictures(1, seed=3), at).eval()
    other = net.trunk(model.other).mean((2, 3)).expand(2, -1)

    def tail(features):
        parts = [features.mean((2, 3))]
        parts.insert(at, other)
        return net.fc(torch.cat(parts, 1))

    got = xcam.explain(model, images, 1, "gradcam", layer=layer)
    assert got.method.layer == "net.trunk"
    assert_close(got.raw, gradcam_by_hand(net.trunk(images), tail, 1))


@pytest.mark.parametrize("method", ["gradcam", "ablationcam", "conv_output"])
def test_triplet_net_is_explained_by_its_middle_call(method):
    net, images = seeded(Triplet).double(), pictures(2).double()
    features = net.trunk(images).detach()
    bound = net.trunk(net.first).detach(), net.trunk(net.last).detach()

    def tail(changed):
        return net.scores(bound[0], changed, bound[1])

    if method == "gradcam":
        expected = gradcam_by_hand(features, tail, 1)
    elif method == "conv_output":
        expected = features.mean(1)
    else:
        clean, falls = tail(features)[:, 1], []
        for channel in range(8):
            without = features.clone()
            without[:, channel] = 0
            falls.append((clean - tail(without)[:, 1]) / clean.abs())
        expected = (torch.stack(falls, 1)[:, :, None, None] * features).sum(1)
    assert_close(xcam.explain(net, images, 1, method).raw, expected.detach().float())


def test_siamese_net_says_that_the_map_is_of_one_call():
    net, pair = seeded(Siamese), pictures(2, channels=6)
    with pytest.warns(XcamWarning, match=r"'trunk' is called 2 times .* calls 1, 2; the map is of"):
        got = xcam.explain(net, pair, 1)
    model = Bound(net, pair[:1, :3], at=0)  # the remedy: the first picture in a wrapper
    alone = xcam.explain(model, pair[:1, 3:], 1)
    assert not run_notes(alone)
    assert_close(alone.raw, got.raw[:1])


def test_flipped_copy_of_the_image_is_a_call_of_its_own():
    class Flipping(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = GapNet()

        def forward(self, images):
            return self.net(images) + self.net(images.flip(3))

    with pytest.warns(XcamWarning, match=r"'net.features' is called 2 times .* calls 1, 2"):
        xcam.explain(Flipping(), pictures(1), 1, "eigencam")


@pytest.mark.parametrize("at", [0, 1])
def test_trunk_of_a_bound_picture_is_not_chosen(at):
    model = Bound(seeded(TwoTrunks), pictures(1, seed=3), at).eval()
    assert default_layer(model, pictures(2)) == ("net.right", "net.left")[at]
    assert not run_notes(xcam.explain(model, pictures(2), 1))


@pytest.mark.parametrize(
    ("net", "channels", "layer", "remedy"),
    [
        (RGBD, 4, "depth", "explain layer 'rgb' as well"),
        (TwoTrunks, 6, "right", "explain layer 'left' as well"),
        (InlineResidual, 3, "last", "name layer='stem', which every path passes"),
        (TwoScales, 3, "second", "name layer='first', which every path passes"),
    ],
)
@pytest.mark.parametrize("method", ["gradcam", "eigencam"])
def test_score_that_depends_on_the_image_around_the_default_layer(
    net, channels, layer, remedy, method
):
    model, images = seeded(net), pictures(2, channels)
    with pytest.warns(XcamWarning, match=f"default layer {layer!r}, so .*{remedy}") as seen:
        got = xcam.explain(model, images, 1, method, batch_size=1)
    assert len(seen) == len(run_notes(got)) == 1
    assert got.method.layer == layer
    if "every path" in remedy:
        named = remedy.split("'")[1]
        assert not run_notes(xcam.explain(model, images, 1, method, layer=named))


@pytest.mark.parametrize(
    ("net", "layer", "cut"),
    [
        (GapNet(), "features", Cut(around=False, calls=(0,), fed=(0,))),
        (SmallCNN(inplace=True), "features.4", Cut(around=False, calls=(0,), fed=(0,))),
        (TokenNet(), "blocks.1", Cut(around=False, calls=(0,), fed=(0,))),
        (seeded(InlineResidual), "last", Cut(around=True, calls=(0,), fed=(0,))),
        (seeded(Triplet), "trunk.0", Cut(around=False, calls=(1,), fed=(1,))),
    ],
)
def test_cut_layer(net, layer, cut):
    assert cut_layer(net, layer, pictures(2)) == cut


def test_paths_are_told_in_the_search_for_the_layer_without_a_pass():
    passes = []
    for net in (GapNet(), SmallCNN(inplace=True)):
        net.register_forward_pre_hook(lambda *_: passes.append(1))
        xcam.explain(net, pictures(1), 1, "eigencam")
    assert len(passes) == 2
