"""The contract suite catches trainable methods that are wrong on purpose, each by its check."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from trained import run_head

from xcam.core import Headed, Method, MethodSpec, Target, TrainableMethod, find_headed
from xcam.methods.trainable.backbone import Backbone
from xcam.methods.trainable.heads import read_head
from xcam.methods.trainable.taps import Place, tapped
from xcam.testing import check_method, method_checks
from xcam.testing.checks import training
from xcam.testing.method_subject import attach_head
from xcam.testing.probe import ProbeNet, sample_images


class Gate(nn.Module):
    """Its output is the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.point = nn.Conv2d(channels, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.point(features).sigmoid()


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
        alters_prediction=True,
    )

    def attach(self, model: nn.Module, like: Tensor | None = None) -> nn.Module:
        backbone = Backbone(model, like)
        layer = self.layer or backbone.default_layer()
        head = self.head(backbone.shape(Place(layer))[1])
        return backbone.with_head(head, dataclasses.replace(self, layer=layer))

    def head(self, channels: int) -> nn.Module:
        return Gate(channels)

    def logits(self, net: Headed, images: Tensor) -> Tensor:
        return tapped(net, images, {Place(self.layer): lambda found: self.changed(net.head, found)})

    def changed(self, gate: nn.Module, features: Tensor) -> Tensor:
        return features * gate(features)

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        logits = net(images)
        return F.cross_entropy(logits, labels), logits

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return read_head(model, images, target)[:, 0]


def part(net: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """Return the first part of the net that is of a class."""
    return next(module for module in net.modules() if isinstance(module, kind))


class WorksOnTheGiven(Good):
    def attach(self, model: nn.Module, like: Tensor | None = None) -> nn.Module:
        net = super().attach(model, like)
        find_headed(net).classifier.fc = part(model, nn.Linear)
        return net


class LeavesHookInAttach(Good):
    def attach(self, model: nn.Module, like: Tensor | None = None) -> nn.Module:
        next(model.children()).register_forward_hook(lambda *_: None)
        return super().attach(model, like)


class SharesWeights(Good):
    def attach(self, model: nn.Module, like: Tensor | None = None) -> nn.Module:
        net = super().attach(model, like)
        part(net, nn.Conv2d).weight.data = part(model, nn.Conv2d).weight.data
        return net


class ForgetsTheNormalisation(Good):
    def attach(self, model: nn.Module, like: Tensor | None = None) -> nn.Module:
        return find_headed(super().attach(model, like))


class HasAnotherClass(Good):
    def logits(self, net: Headed, images: Tensor) -> Tensor:
        return F.pad(super().logits(net, images), (0, 1), value=-9.0)


class Wide(Gate):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels)
        self.gains = nn.Parameter(torch.ones(width))

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) * self.gains.mean()


@dataclass(frozen=True)
class TellsAnotherWidth(Good):
    width: int | None = None

    def attach(self, model: nn.Module, like: Tensor | None = None) -> nn.Module:
        net = super().attach(model, like)
        own = find_headed(net)
        own.method = dataclasses.replace(own.method, width=self.width or 4)
        return net

    def head(self, channels: int) -> nn.Module:
        return Wide(channels, self.width or 3)


class ClaimsToBeTrained(Good):
    def attach(self, model: nn.Module, like: Tensor | None = None) -> nn.Module:
        net = super().attach(model, like)
        find_headed(net).fitted = True
        return net


class CutsTheGradient(Good):
    def changed(self, gate: nn.Module, features: Tensor) -> Tensor:
        return features * gate(features).detach()


class ChangesNothing(Good):
    spec: ClassVar[MethodSpec] = dataclasses.replace(Good.spec, alters_prediction=False)

    def changed(self, gate: nn.Module, features: Tensor) -> Tensor:
        return features + 0 * gate(features)


class DividesByTheFeatures(Good):
    def changed(self, gate: nn.Module, features: Tensor) -> Tensor:
        return super().changed(gate, features / features.amax((1, 2, 3), keepdim=True))


class LossPerImage(Good):
    def loss(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        return F.cross_entropy(net(images), labels, reduction="none"), None


class LossAlone(Good):
    def loss(self, net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return super().loss(net, images, labels)[0]


class OtherLogits(Good):
    def loss(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        loss, logits = super().loss(net, images, labels)
        return loss, 1 - logits


class Keeping(Gate):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.features = None

    def forward(self, features: Tensor) -> Tensor:
        self.features = features.detach()
        return super().forward(features)


class KeepsFeatures(Good):
    def head(self, channels: int) -> nn.Module:
        return Keeping(channels)


class HooksByClosure(Good):
    def attach(self, model: nn.Module, like: Tensor | None = None) -> nn.Module:
        net = super().attach(model, like)
        own = find_headed(net)
        gate = own.head
        hook = lambda _module, _inputs, features: features * gate(features)  # noqa: E731
        own.classifier.get_submodule(own.method.layer).register_forward_hook(hook)
        return net

    def logits(self, net: Headed, images: Tensor) -> Tensor:
        return net.classifier(images)


class SumsInFullPrecision(Good):
    def loss(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        logits, gates = run_head(net, images)
        sums = torch.zeros(5).index_add(0, labels, gates.mean((1, 2, 3)))
        return F.cross_entropy(logits, labels) + sums.mean(), logits


class NeedsGradients(Good):
    def loss(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        logits = net(images)
        weight = part(net, nn.Linear).weight
        (slope,) = torch.autograd.grad(logits.sum(), weight, create_graph=True)
        return F.cross_entropy(logits, labels) + slope.square().mean(), logits


class DeniesThatItAltersThePrediction(Good):
    spec: ClassVar[MethodSpec] = dataclasses.replace(Good.spec, alters_prediction=False)


CAUGHT: dict[type[Method], set[str]] = {
    WorksOnTheGiven: {"attach_leaves_the_model"},
    LeavesHookInAttach: {"attach_leaves_the_model", "survives_copying"},
    SharesWeights: {"attach_leaves_the_model"},
    ForgetsTheNormalisation: {"attach_gives_a_classifier"},
    HasAnotherClass: {"attach_gives_a_classifier"},
    TellsAnotherWidth: {"attach_can_be_repeated", "survives_saving"},
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
    LossAlone: {
        "gradients_reach_the_head",
        "dead_features_give_finite_gradients",
        "measures_new_images",
        "runs_in_half_precision",
    },
    OtherLogits: {"measures_new_images"},
    NeedsGradients: {"measures_new_images"},
    DeniesThatItAltersThePrediction: {"tells_whether_it_alters_the_prediction"},
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


def test_head_changes_features_only_in_its_own_passes():
    """Features are changed in the head's own passes, and the classifier alone runs unchanged."""
    probe, images = ProbeNet(), sample_images(2)
    net = attach_head(Good(), probe)
    with torch.no_grad():
        features = probe.features(images)
        gated = features * net.head(features)
        assert torch.equal(net(images), probe.fc(gated.mean((2, 3))))
        assert torch.equal(net.classifier(images), probe(images))
