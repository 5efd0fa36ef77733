"""The net and images of the checks where an author brings none; a fuse that fails passes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.core import MethodSpec, MetricSpec
from xcam.models import load
from xcam.models.toy import GapNet

__all__ = [
    "CLASSES",
    "ContractError",
    "Fuse",
    "PlannedError",
    "ProbeNet",
    "Relus",
    "build_probe",
    "kill_features",
    "replace_relus",
    "sample_images",
]

CLASSES = (2, 0, 4, 1, 3)
"""A class for each of five images: all different, and rarely the predicted one."""

Relus = Literal["inplace", "functional", "reused", "none"]


class ContractError(AssertionError):
    """A method or metric does not keep what all promise; the message is one sentence."""


class PlannedError(Exception):
    """The failure that a check planned; whoever runs the model must let it pass."""


class Fuse:
    """Counts the passes of a net and all its copies, and fails one of them.

    Attributes:
        limit: The pass to fail, counted from 1; None for no failure.
        at: Where in the pass: before the net's first module or behind its last. A method that
            stops a pass half-way never gets to the end.
        blown: The planned failure has happened.
        runners: For each pass the net that ran, by identity, and the types of its modules.
    """

    def __init__(self, limit: int | None = None, at: Literal["start", "end"] = "start") -> None:
        self.limit, self.at = limit, at
        self.blown = False
        self.runners: list[tuple[int, tuple[type, ...]]] = []

    def __deepcopy__(self, _memo: dict[int, Any]) -> Fuse:
        """Return the fuse itself: a copied net is still counted, and still fails."""
        return self

    @property
    def passes(self) -> int:
        """Return how many passes there were."""
        return len(self.runners)

    def install(self, net: nn.Module) -> None:
        """Hook the fuse into a net."""
        net.register_forward_pre_hook(self.start_pass)
        net.register_forward_hook(self.end_pass)

    def plan_failures(self) -> list[Fuse]:
        """Return fuses that fail the first, a middle and the last of the passes, at both ends."""
        chosen = {1, (self.passes + 1) // 2, self.passes} if self.passes else set()
        return [Fuse(limit, at) for limit in sorted(chosen) for at in ("start", "end")]

    def start_pass(self, net: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Count a pass, and fail it if it is the one; the search for a layer on meta is none."""
        if not (inputs and isinstance(inputs[0], Tensor) and inputs[0].is_meta):
            self.runners.append(identify(net))
            self._burn("start")

    def end_pass(self, _net: nn.Module, _inputs: object, _output: object) -> None:
        """Fail the pass if it is the one."""
        self._burn("end")

    def _burn(self, at: str) -> None:
        if at == self.at and self.passes == self.limit:
            self.blown = True
            raise PlannedError(f"pass {self.passes} was made to fail")


def identify(net: nn.Module) -> tuple[int, tuple[type, ...]]:
    """Return what tells a net from a changed copy of it."""
    return id(net), tuple(type(module) for module in net.modules())


class ProbeNet(nn.Module):
    """Convolutions with batch norm, global average pooling, one linear layer: all CNN methods run.

    Args:
        channels: Channels of the images.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        toy = GapNet(channels)
        self.features = _Features(toy.features[0], toy.features[2])
        self.fc = toy.fc
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, 5) of images (B, channels, H, W)."""
        logits: Tensor = self.fc(self.features(images).mean((2, 3)))
        return logits


def build_probe(spec: MethodSpec | MetricSpec, channels: int = 3) -> nn.Module:
    """Build a `ProbeNet`, or the small net that a method's spec names, seeded, in eval mode.

    Raises:
        ValueError: That one takes images of three channels alone.
    """
    if not isinstance(spec, MethodSpec) or not spec.net:
        return ProbeNet(channels)
    if channels != 3:
        raise ValueError(f"the net of {spec.name} takes images of three channels, got {channels}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load(**spec.net)


class _Features(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.conv1, self.norm1, self.relu1 = first, _build_batch_norm(8), nn.ReLU()
        self.conv2, self.norm2, self.relu2 = second, _build_batch_norm(12), nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu1(self.norm1(self.conv1(images)))
        output: Tensor = self.relu2(self.norm2(self.conv2(hidden)))
        return output


def _build_batch_norm(channels: int) -> nn.BatchNorm2d:
    """Build a batch norm that shows when it is left in training mode."""
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        for tensor, lowest, highest in (
            (norm.weight, 0.5, 1.5),
            (norm.bias, 0.2, -0.2),
            (norm.running_mean, -0.3, 0.3),
            (norm.running_var, 1.5, 0.5),
        ):
            if tensor is not None:
                tensor.copy_(torch.linspace(lowest, highest, channels))
    return norm


class _FunctionalReLU(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return F.relu(values)


def replace_relus(net: nn.Module, kind: Relus) -> nn.Module:
    """Return a copy of a net whose ReLU modules are written otherwise.

    Args:
        net: Any net; one without ReLU modules comes back as it is.
        kind: In place; as functions; as one module that is called in all places; or left out.
    """
    copied, shared = copy.deepcopy(net), nn.ReLU()
    makers: dict[Relus, Callable[[], nn.Module]] = {
        "inplace": lambda: nn.ReLU(inplace=True),
        "functional": _FunctionalReLU,
        "reused": lambda: shared,
        "none": nn.Identity,
    }
    for parent in list(copied.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, makers[kind]())
    return copied.train(net.training)


@torch.no_grad()
def kill_features(net: nn.Module) -> nn.Module:
    """Zero all weights of a net but those of its last module with weights; return the net."""
    weighted = [module for module in net.modules() if list(module.parameters(recurse=False))]
    for module in weighted[:-1]:
        for parameter in module.parameters(recurse=False):
            parameter.zero_()
    return net


def sample_images(count: int = 5, channels: int = 3, size: tuple[int, int] = (16, 16)) -> Tensor:
    """Return seeded noise in [0, 1]; the first images are the same whatever `count`."""
    draws = [
        torch.rand(channels, *size, generator=torch.Generator().manual_seed(seed))
        for seed in range(count)
    ]
    return torch.stack(draws)
