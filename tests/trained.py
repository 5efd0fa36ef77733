"""A small trainable method for tests: a 1x1 convolution over the backbone's images."""

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from xcam.core import MethodSpec, TrainableMethod
from xcam.engine import forward, unwrap


class Headed(nn.Module):
    """The backbone's logits, and a map beside them."""

    def __init__(self, backbone, width):
        super().__init__()
        self.backbone, self.head = backbone, nn.Conv2d(3, width, 1)

    def forward(self, images):
        return self.backbone(images)


@dataclass(frozen=True, eq=False, repr=False)
class Pointwise(TrainableMethod):
    """Its map is the largest output of the head, times a gain."""

    width: int = 4
    gain: float = 1.0
    offset: torch.Tensor | None = None
    spec: ClassVar[MethodSpec] = MethodSpec("pointwise", "Pointwise", "", "trainable", "1 forward")

    def attach(self, model):
        return Headed(copy.deepcopy(model), self.width)

    def loss(self, module, images, labels):
        return nn.functional.cross_entropy(module(images), labels)

    def maps(self, model, images, target):
        target.bind(forward.call(model, images))
        return self.gain * unwrap(model).head(images).amax(1)


@dataclass(frozen=True)
class Other(Pointwise):
    """The same under another name."""

    spec: ClassVar[MethodSpec] = MethodSpec("other", "Other", "", "trainable", "1 forward")


def fitted(method, backbone, seed=1):
    """What training would give."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = method.attach(backbone)
    net.method, net.fitted = method, True
    return net.eval()


@dataclass(frozen=True)
class Layered(Pointwise):
    """Another that says which layer of the backbone its head reads."""

    layer: str | None = None
    spec: ClassVar[MethodSpec] = MethodSpec("layered", "Layered", "", "trainable", "1 forward")


@dataclass(frozen=True)
class Valued(Pointwise):
    """Another whose head cannot be made without values."""

    spec: ClassVar[MethodSpec] = MethodSpec("valued", "Valued", "", "trainable", "1 forward")

    def attach(self, model):
        net = super().attach(model)
        net.head.weight.data /= net.head.weight.sum().item()
        return net
