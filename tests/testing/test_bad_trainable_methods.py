"""The contract suite catches trainable methods that are wrong on purpose, each by its check."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Target, TrainableMethod
from xcam.methods.trainable import heads
from xcam.methods.trainable.backbone import Backbone
from xcam.testing import check_method, method_checks
from xcam.testing.checks import training
from xcam.testing.probe import ProbeNet, carrier, pictures


class Gate(nn.Module):
    """Its output is the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.point = nn.Conv2d(channels, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.point(features).sigmoid()


class Gated(nn.Module):
    """The backbone with its features times the gate."""

    def __init__(self, backbone: nn.Module, layer: str, channels: int) -> None:
        super().__init__()
        self.backbone, self.gate = backbone, Gate(channels)
        self.tap = heads.Tap(backbone, layer)

    def forward(self, images: Tensor) -> Tensor:
        return self.tap.run(self.backbone, images, self.changed)

    def changed(self, features: Tensor) -> Tensor:
        return features * self.gate(features)


@dataclass(frozen=True)
class Good(TrainableMethod):
    """Wrong in nothing."""

    layer: str | None = None

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="gated",
        title="Gated",
        paper="None, 2026",
        family="trainable",
        cost="1 forward",
        class_specific=False,
        signed=False,
        normalized=True,
    )

    def attach(self, model: nn.Module) -> nn.Module:
        backbone = Backbone.copied(model)
        layer = self.layer or backbone.default_layer()
        head = self.head(backbone.net, layer, backbone.shape(layer)[1])
        return backbone.carrying(head, dataclasses.replace(self, layer=layer))

    def head(self, net: nn.Module, layer: str, channels: int) -> nn.Module:
        return Gated(net, layer, channels)

    def loss(self, module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(module(images), labels)

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return heads.read(model, heads.part(model, Gate), images, target)[:, 0]


class WorksOnTheGiven(Good):
    def attach(self, model: nn.Module) -> nn.Module:
        net = super().attach(model)
        heads.part(net, Gated).backbone.fc = heads.part(model, nn.Linear)
        return net


class LeavesHookInAttach(Good):
    def attach(self, model: nn.Module) -> nn.Module:
        next(model.children()).register_forward_hook(lambda *_: None)
        return super().attach(model)


class SharesWeights(Good):
    def attach(self, model: nn.Module) -> nn.Module:
        net = super().attach(model)
        heads.part(net, nn.Conv2d).weight.data = heads.part(model, nn.Conv2d).weight.data
        return net


class ForgetsTheNormalisation(Good):
    def attach(self, model: nn.Module) -> nn.Module:
        net = super().attach(model)
        return net if isinstance(net, Gated) else super().attach(net.model.backbone)


class WithAnotherClass(Gated):
    def forward(self, images: Tensor) -> Tensor:
        return F.pad(super().forward(images), (0, 1), value=-9.0)


class HasAnotherClass(Good):
    def head(self, net: nn.Module, layer: str, channels: int) -> nn.Module:
        return WithAnotherClass(net, layer, channels)


class TellsAnotherLayer(Good):
    def attach(self, model: nn.Module) -> nn.Module:
        net = super().attach(model)
        if self.layer is None:
            net.method = dataclasses.replace(net.method, layer="features.conv1")
        return net


class ClaimsToBeTrained(Good):
    def attach(self, model: nn.Module) -> nn.Module:
        net = super().attach(model)
        net.fitted = True
        return net


class Detached(Gated):
    def changed(self, features: Tensor) -> Tensor:
        return features * self.gate(features).detach()


class CutsTheGradient(Good):
    def head(self, net: nn.Module, layer: str, channels: int) -> nn.Module:
        return Detached(net, layer, channels)


class Unused(Gated):
    def changed(self, features: Tensor) -> Tensor:
        return features + 0 * self.gate(features)


class ChangesNothing(Good):
    def head(self, net: nn.Module, layer: str, channels: int) -> nn.Module:
        return Unused(net, layer, channels)


class Divided(Gated):
    def changed(self, features: Tensor) -> Tensor:
        return super().changed(features / features.amax((1, 2, 3), keepdim=True))


class DividesByTheFeatures(Good):
    def head(self, net: nn.Module, layer: str, channels: int) -> nn.Module:
        return Divided(net, layer, channels)


class LossPerImage(Good):
    def loss(self, module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(module(images), labels, reduction="none")


class Keeping(Gated):
    def __init__(self, backbone: nn.Module, layer: str, channels: int) -> None:
        super().__init__(backbone, layer, channels)
        self.features = None

    def changed(self, features: Tensor) -> Tensor:
        self.features = features.detach()
        return super().changed(features)


class KeepsFeatures(Good):
    def head(self, net: nn.Module, layer: str, channels: int) -> nn.Module:
        return Keeping(net, layer, channels)


class Closed(nn.Module):
    def __init__(self, backbone: nn.Module, layer: str, channels: int) -> None:
        super().__init__()
        self.backbone, gate = backbone, Gate(channels)
        self.gate = gate
        hook = lambda _module, _inputs, features: features * gate(features)  # noqa: E731
        backbone.get_submodule(layer).register_forward_hook(hook)

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(images)


class HooksByClosure(Good):
    def head(self, net: nn.Module, layer: str, channels: int) -> nn.Module:
        return Closed(net, layer, channels)


class SumsInFullPrecision(Good):
    def loss(self, module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        logits, gates = heads.watched(module, heads.part(module, Gate), images)
        sums = torch.zeros(5).index_add(0, labels, gates.mean((1, 2, 3)))
        return F.cross_entropy(logits, labels) + sums.mean()


class NeedsGradients(Good):
    def loss(self, module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        logits = module(images)
        weight = heads.part(module, nn.Linear).weight
        (slope,) = torch.autograd.grad(logits.sum(), weight, create_graph=True)
        return F.cross_entropy(logits, labels) + slope.square().mean()


CAUGHT: dict[type[Method], set[str]] = {
    WorksOnTheGiven: {"attach_leaves_the_model"},
    LeavesHookInAttach: {"attach_leaves_the_model", "survives_copying"},
    SharesWeights: {"attach_leaves_the_model"},
    ForgetsTheNormalisation: {"attach_gives_a_classifier"},
    HasAnotherClass: {"attach_gives_a_classifier"},
    TellsAnotherLayer: {"attach_can_be_repeated", "survives_saving"},
    ClaimsToBeTrained: {"needs_fitting"},
    CutsTheGradient: {"gradients_reach_the_head", "dead_features_give_finite_gradients"},
    ChangesNothing: {"gradients_reach_the_head"},
    DividesByTheFeatures: {"dead_features_give_finite_gradients"},
    LossPerImage: {
        "gradients_reach_the_head",
        "dead_features_give_finite_gradients",
        "measures_new_images",
        "runs_in_half_precision",
    },
    NeedsGradients: {"measures_new_images"},
    KeepsFeatures: {"keeps_no_features"},
    HooksByClosure: {"survives_copying"},
    SumsInFullPrecision: {"runs_in_half_precision"},
}
TRAINABLE = {check.__name__ for check in training.CHECKS}


def broken(method):
    checks = (check for check in method_checks(method) if check.name in TRAINABLE)
    results = [check.result() for check in checks]
    return {result.check: result.message for result in results if result.outcome == "broken"}


def test_good_method_keeps_every_promise():
    assert {(r.outcome, r.message) for r in check_method(Good())} == {("kept", "")}


@pytest.mark.parametrize("kind", CAUGHT, ids=lambda kind: kind.__name__)
def test_bad_method_is_caught_by_its_check(kind):
    found = broken(kind())
    assert set(found) == CAUGHT[kind], found
    assert all("\n" not in message and message for message in found.values())


def test_every_check_catches_something():
    assert set().union(*CAUGHT.values()) == TRAINABLE


def test_a_head_stands_where_it_is_put():
    """Features are changed in the head's own passes, and the backbone alone runs unchanged."""
    probe, images = ProbeNet(), pictures(2)
    net = carrier(Good(), probe)
    with torch.no_grad():
        features = probe.features(images)
        gated = features * heads.part(net, Gate)(features)
        assert torch.equal(net(images), probe.fc(gated.mean((2, 3))))
        assert torch.equal(net.backbone(images), probe(images))
