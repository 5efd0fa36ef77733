"""What the checks run methods on: a small net that counts its passes and fails on command."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam._explain.prepare import prepare
from xcam._explain.verb import explain
from xcam.core import Explanation, Method, TargetLike, TrainableMethod, attached_method
from xcam.errors import XcamWarning
from xcam.models.toy import GapNet

__all__ = [
    "CLASSES",
    "ContractError",
    "Fuse",
    "PlannedError",
    "ProbeNet",
    "carrier",
    "distance",
    "explained",
    "pictures",
    "placed",
    "probe_of",
]

CLASSES = (2, 0, 4, 1, 3)
"""A class for each of five images: all different, and rarely the predicted one."""

Rectifier = Literal["module", "inplace", "functional", "reused", "none"]


class ContractError(AssertionError):
    """A method or metric does not keep what all promise; the message is one sentence."""


class PlannedError(Exception):
    """The failure that a check planned; whoever runs the model must let it pass."""


class Fuse:
    """Counts the passes of a net and all its copies, and fails one of them.

    Attributes:
        limit: The pass to fail, counted from 1; None for no failure.
        runners: For each pass the net that ran, by identity, and the types of its modules.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.runners: list[tuple[int, tuple[type, ...]]] = []

    def __deepcopy__(self, _memo: dict[int, Any]) -> Fuse:
        """Itself: a copied net is still counted, and still fails."""
        return self

    @property
    def passes(self) -> int:
        """How many passes there were."""
        return len(self.runners)

    def failures(self) -> list[Fuse]:
        """Fuses that fail the first, a middle and the last of the passes that there were."""
        chosen = {1, (self.passes + 1) // 2, self.passes} if self.passes else set()
        return [Fuse(limit) for limit in sorted(chosen)]

    def burn(self, net: nn.Module) -> None:
        """Counts a pass.

        Raises:
            PlannedError: It is the one to fail.
        """
        self.runners.append((id(net), tuple(type(module) for module in net.modules())))
        if self.passes == self.limit:
            raise PlannedError(f"pass {self.passes} was made to fail")


class ProbeNet(nn.Module):
    """Convolutions with batch norm, global average pooling, one linear layer: all methods run.

    Whatever the rectifier, the function computed and the output of `features` are the same;
    only `"none"` leaves it out, so that activations are signed.

    Args:
        rectifier: How the ReLUs are written: as modules, in place, as functions, as one module
            that is called twice, or not at all.
        channels: Channels of the images.
    """

    def __init__(self, rectifier: Rectifier = "module", channels: int = 3) -> None:
        super().__init__()
        toy = GapNet(channels, relu=rectifier != "none")
        self.features = _Features(toy.features[0], toy.features[2], rectifier)
        self.fc = toy.fc
        self.fuse = Fuse()
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 5) of images (B, channels, H, W)."""
        features = self.features(images)
        if images.device.type != "meta":  # the search for a default layer is no pass
            self.fuse.burn(self)  # in the tail: whatever hooks there are have been called
        logits: Tensor = self.fc(features.mean((2, 3)))
        return logits


class _Features(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module, rectifier: Rectifier) -> None:
        super().__init__()
        self.conv1, self.norm1 = first, _batch_norm(8)
        self.conv2, self.norm2 = second, _batch_norm(12)
        self.rectifier = rectifier
        if rectifier != "functional":
            self.relu1 = nn.Identity() if rectifier == "none" else nn.ReLU(rectifier == "inplace")
            self.relu2 = self.relu1 if rectifier == "reused" else type(self.relu1)()
        if rectifier == "inplace":
            self.relu2 = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        relu1, relu2 = (F.relu, F.relu)
        if self.rectifier != "functional":
            relu1, relu2 = self.relu1, self.relu2
        hidden = relu1(self.norm1(self.conv1(images)))
        output: Tensor = relu2(self.norm2(self.conv2(hidden)))
        return output


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    """A batch norm that shows when it is left in training mode."""
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


def pictures(count: int = 5, channels: int = 3, size: tuple[int, int] = (16, 16)) -> Tensor:
    """Seeded noise in [0, 1]; the first images are the same whatever `count`."""
    draws = [
        torch.rand(channels, *size, generator=torch.Generator().manual_seed(seed))
        for seed in range(count)
    ]
    return torch.stack(draws)


def carrier(method: Method, net: nn.Module) -> nn.Module:
    """What the method runs on: the net, or for a trainable method a copy with its head.

    The head's weights are seeded, and it counts as trained. A net that carries one stays as it is.
    """
    if not isinstance(method, TrainableMethod) or attached_method(net) is not None:
        return net
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        carried = method.attach(net)
    if attached_method(carried) is None:
        raise ContractError(
            f"{method.spec.name}: attach must return a Headed, alone or inside the model's "
            f"Normalized, got {type(carried).__name__}"
        )
    carried.fitted = True  # type: ignore[assignment]
    return carried


def probe_of(net: nn.Module) -> ProbeNet:
    """The probe that the net is, or has inside."""
    probe = next((module for module in net.modules() if isinstance(module, ProbeNet)), None)
    if probe is None:
        raise ContractError(
            f"the {type(net).__name__} that attach gives does not hold the classifier as a module"
        )
    return probe


def placed(method: Method) -> Method:
    """The method with what it leaves open filled in for the probe, such as the layer it reads."""
    return prepare(carrier(method, ProbeNet()), pictures(1), method).method


def explained(
    method: Method,
    net: nn.Module | None = None,
    images: Tensor | None = None,
    target: TargetLike | Sequence[int] = CLASSES,
    batch_size: int | None = None,
) -> Explanation:
    """Explains, on a fresh probe and five pictures unless told otherwise; notes are not shown."""
    net = carrier(method, ProbeNet() if net is None else net)
    images = pictures() if images is None else images
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XcamWarning)
        return explain(net, images, target, method, batch_size)


def distance(maps: Tensor, reference: Tensor) -> float:
    """The largest difference of any image's maps, as a share of the reference's range.

    Where a reference map is flat its largest magnitude stands for the range, or 1 if it is zero.
    """
    if maps.shape != reference.shape:
        return float("inf")
    flat = reference.flatten(1)
    span, magnitude = flat.amax(1) - flat.amin(1), flat.abs().amax(1)
    scale = torch.where(span > 0, span, torch.where(magnitude > 0, magnitude, 1))
    return float(((maps - reference).flatten(1).abs().amax(1) / scale).max())
