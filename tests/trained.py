"""A small trainable method for tests: a 1x1 convolution over the backbone's images."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from xcam.core import MethodSpec, TrainableMethod, find_headed
from xcam.engine import Layer, forward
from xcam.methods.trainable.backbone import Backbone


def run_head(net, images):
    """The logits of a net, and what its head gives on the way."""
    given = []
    handle = find_headed(net).head.register_forward_hook(lambda *call: given.append(call[2]))
    try:
        logits = net(images)
    finally:
        handle.remove()
    return logits, given[-1]


@dataclass(frozen=True, eq=False, repr=False)
class Pointwise(TrainableMethod):
    """Its map is the largest output of the head, times a gain."""

    width: int = 4
    gain: float = 1.0
    offset: torch.Tensor | None = None
    spec: ClassVar[MethodSpec] = MethodSpec("pointwise", "Pointwise", "", "trainable", "1 forward")

    def attach(self, model, like=None):
        return Backbone(model, like).with_head(nn.Conv2d(3, self.width, 1), self)

    def loss(self, net, images, labels):
        logits = net(images)
        return nn.functional.cross_entropy(logits, labels), logits

    def maps(self, model, images, target):
        target.bind(forward.call(model, images))
        return self.gain * find_headed(model).head(images).amax(1)


@dataclass(frozen=True)
class Other(Pointwise):
    """The same under another name."""

    spec: ClassVar[MethodSpec] = MethodSpec("other", "Other", "", "trainable", "1 forward")


def fitted(method, backbone, seed=1):
    """What training would give."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = method.attach(backbone)
    net.fitted = True
    return net.eval()


@dataclass(frozen=True)
class Layered(Pointwise):
    """Another that says which layer of the backbone its head reads."""

    layer: Layer | None = None
    spec: ClassVar[MethodSpec] = MethodSpec("layered", "Layered", "", "trainable", "1 forward")


@dataclass(frozen=True)
class Valued(Pointwise):
    """Another whose head cannot be made without values."""

    spec: ClassVar[MethodSpec] = MethodSpec("valued", "Valued", "", "trainable", "1 forward")

    def attach(self, model, like=None):
        net = super().attach(model, like)
        net.head.weight.data /= net.head.weight.sum().item()
        return net
