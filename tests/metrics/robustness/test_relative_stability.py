"""Relative stability: closed forms for linear maps, and copies that are decided otherwise."""

from contextlib import nullcontext

import pytest
import torch
from by_hand import seeded
from similar_maps import Multiple
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.core import independent_classes
from xcam.engine.shared import share_passes
from xcam.errors import LayerError
from xcam.metrics import (
    MaxSensitivity,
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
)
from xcam.metrics.robustness.neighbors import draw_neighbors
from xcam.models.toy import GapNet, LinearNet

IMAGES = seeded(3, 1, 8, 8) + 0.1
KINDS = [RelativeInputStability, RelativeOutputStability, RelativeRepresentationStability]
FEW = {"radius": 0.05, "n_samples": 4}


class Gate(nn.Module):
    """Two logits: how much brighter than 0.5 the image is, and 0; or the first alone."""

    def __init__(self, logits=2):
        super().__init__()
        self.body, self.logits = nn.Identity(), logits

    def forward(self, images):
        brightness = self.body(images).mean((1, 2, 3)) - 0.5
        return torch.stack([brightness, 0 * brightness], 1)[:, : self.logits]


@pytest.fixture(scope="module")
def net():
    return GapNet(1)


def copies(n_samples=4, radius=0.05, images=IMAGES):
    _, found = draw_neighbors(images, slice(0, n_samples * len(images)), radius, "uniform", 0)
    return found.unflatten(0, (n_samples, len(images))).double()


def percent(after, before):
    return ((after - before) / before).flatten(2).norm(dim=2)


def test_a_linear_map_changes_as_much_as_the_image(net):
    explanation = xcam.explain(net, IMAGES, method=Multiple(-3.0))
    metric = RelativeInputStability(**FEW)
    rows = metric.score(net, IMAGES, explanation)
    assert_close(rows, torch.ones(3, 2).double(), rtol=1e-5, atol=0)
    assert_close(metric.finish(rows.mean(0)), torch.tensor(1.0).double(), rtol=1e-5, atol=0)


def test_change_of_the_output_and_of_a_layer(net):
    """By hooks of the test's own, from the copies that the metric draws."""
    explanation = xcam.explain(net, IMAGES, method=Multiple())
    seen = []
    handle = net.features.register_forward_hook(lambda *call: seen.append(call[2].double()))
    with torch.no_grad():
        logits = [net(images.float()).double() for images in (IMAGES, *copies())]
    handle.remove()
    maps, before = percent(copies(), IMAGES.double()), seen[0]
    change = (torch.stack(seen[1:]) - before) / before.where(before != 0, 1e-6)
    for kind, settings, moved in (
        (RelativeOutputStability, {}, (torch.stack(logits[1:]) - logits[0]).norm(dim=2)),
        (RelativeRepresentationStability, {"layer": "features"}, change.flatten(2).norm(dim=2)),
    ):
        rows = kind(**FEW, **settings).score(net, IMAGES, explanation)
        assert rows[:, 1].tolist() == [1, 1, 1]
        assert_close(rows[:, 0], (maps / moved).amax(0), rtol=1e-3, atol=0)


def test_the_default_layer_is_that_of_cams(net):
    layer = xcam.explain(net, IMAGES, method="gradcam").method.layer
    explanation = xcam.explain(net, IMAGES, method=Multiple())
    one, other = (
        RelativeRepresentationStability(**FEW, layer=name).score(net, IMAGES, explanation)
        for name in (None, layer)
    )
    assert torch.equal(one, other)


def test_copies_that_are_decided_otherwise_are_left_out():
    """Noise moves the mean by less than 0.02: one image is far from the gate, two are near it."""
    net, noise = Gate(), (copies(6) - IMAGES).mean((2, 3, 4))[:, 0]
    levels = torch.tensor([0.8, 0.5 - float(noise.median()), 0.502])
    images = (IMAGES - IMAGES.mean((1, 2, 3), keepdim=True)) / 9 + levels[:, None, None, None]
    explanation = xcam.explain(net, images, [0, 0, 0], Multiple(1.0, 2.0))
    metric = RelativeInputStability(radius=0.05, n_samples=6)
    rows = metric.score(net, images, explanation)
    near = copies(6, images=images)
    ratios = ((near - images) / (images + 2)).flatten(2).norm(dim=2) / percent(
        near, images.double()
    )
    kept = (near.mean((2, 3, 4)) > 0.5) == (images.mean((1, 2, 3)) > 0.5)
    assert kept[:, 0].all()
    assert 0 < int(kept[:, 1].sum()) < 6
    assert_close(rows[:, 0], ratios.where(kept, 0).amax(0), rtol=1e-4, atol=0)
    assert rows[:, 1].tolist() == kept.any(0).double().tolist()


@pytest.mark.parametrize("multi_label", [False, True])
def test_an_image_without_a_copy_of_its_class_does_not_count(multi_label):
    """A single logit, or that of a class by itself, is decided by its sign."""
    net, up = Gate(2 if multi_label else 1), float((copies(1) - IMAGES).mean((2, 3, 4))[0, 0])
    images = (IMAGES - IMAGES.mean((1, 2, 3), keepdim=True)) / 9 + 0.5
    images = images + torch.tensor([0.3, -up / 2, -0.3])[:, None, None, None]
    metric = RelativeInputStability(radius=0.05, n_samples=1)
    with independent_classes() if multi_label else nullcontext():
        explanation = xcam.explain(net, images, [0, 0, 0], Multiple())
        rows = metric.score(net, images, explanation)
    assert rows[:, 1].tolist() == [1, 0, 1]
    assert metric.finish(rows)[1].isnan()
    assert_close(metric.finish(rows.mean(0)), torch.tensor(1.0).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_that_ignores_the_image_is_stable(kind, net):
    explanation = xcam.explain(net, IMAGES, method=Multiple(0.0, 1.0))
    assert kind(**FEW).score(net, IMAGES, explanation)[:, 0].tolist() == [0, 0, 0]


def test_all_of_them_explain_a_copy_once(net):
    explanation, rows = xcam.explain(net, IMAGES, method="saliency"), []
    metrics = [kind(**FEW) for kind in (MaxSensitivity, *KINDS)]
    handle = net.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    with share_passes(IMAGES):
        for metric in metrics:
            metric.score(net, IMAGES, explanation)
    handle.remove()
    assert sum(rows) == 3 * (4 + 1 + (4 + 1))  # explained; clean; the layer of the copies and clean


def test_net_without_spatial_layers_needs_the_name_of_one():
    net, images = LinearNet((3, 8, 8)), seeded(2, 3, 8, 8)
    explanation = xcam.explain(net, images, 1, "saliency")
    with pytest.raises(LayerError, match=r"give relative_representation_stability one of its"):
        RelativeRepresentationStability(n_samples=2).score(net, images, explanation)
    metric = RelativeRepresentationStability(n_samples=2, layer="fc")
    assert metric.score(net, images, explanation).isfinite().all()
