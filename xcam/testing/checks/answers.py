"""What comes back: maps of the right kind, of the right target, for any input, on the device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from xcam.core import Method, Target, TargetLike
from xcam.errors import XcamError
from xcam.models.toy import LinearNet, SmallCNN, TokenNet
from xcam.testing.device import LeftDeviceError, StayOnDevice
from xcam.testing.probe import (
    CLASSES,
    ContractError,
    ProbeNet,
    carrier,
    distance,
    explained,
    pictures,
    placed,
)

__all__ = ["CHECKS", "TARGETS"]

_SAME, _DIFFERENT = 1e-5, 1e-3


def gives_maps(method: Method) -> None:
    """(B, h, w) of more than one cell, or a value for each element of the images; finite floats."""
    images = pictures()
    net = carrier(method, ProbeNet()).requires_grad_(False)
    raw = placed(method).maps(net, images, Target.of(CLASSES, images))
    if not isinstance(raw, Tensor) or not raw.is_floating_point():
        kind = raw.dtype if isinstance(raw, Tensor) else type(raw).__name__
        raise ContractError(f"{method.spec.name} must give a floating-point tensor, got {kind}")
    is_map = raw.ndim == 3 and len(raw) == len(images) and raw[0].numel() > 1
    if not is_map and raw.shape != images.shape:
        raise ContractError(
            f"{method.spec.name} must give (B, h, w) maps or {tuple(images.shape)}, a value an "
            f"element, got {tuple(raw.shape)}"
        )
    if not bool(raw.isfinite().all()):
        raise ContractError(f"{method.spec.name} gives maps that are not finite")


def keeps_the_aspect(method: Method) -> None:
    """Wide images give maps that are not tall, and tall ones maps that are not wide."""
    for size in ((16, 24), (24, 16)):
        h, w = explained(method, images=pictures(2, size=size), target=1).raw.shape[-2:]
        if (h - w) * (size[0] - size[1]) < 0:
            raise ContractError(
                f"{method.spec.name} gives {h}×{w} maps for {size[0]}×{size[1]} images; the first "
                "axis of a map is its height"
            )


def takes_grey_images(method: Method) -> None:
    """Images of one channel."""
    images = pictures(2, channels=1)
    _require_finite(method, ProbeNet(channels=1), images, "grey images")


def takes_flat_images(method: Method) -> None:
    """Black images, and a constant grey."""
    images = torch.stack([torch.zeros(3, 16, 16), torch.full((3, 16, 16), 0.5)])
    _require_finite(method, ProbeNet(), images, "images of one colour")


def takes_dead_features(method: Method) -> None:
    """A net whose features are zero everywhere: no division by their sum or range."""
    net = ProbeNet()
    nn.init.constant_(net.features.norm2.bias, -1e3)
    _require_finite(method, net, pictures(2), "features that are zero everywhere")


def _require_finite(method: Method, net: nn.Module, images: Tensor, what: str) -> None:
    net = carrier(method, net).requires_grad_(False)
    raw = placed(method).maps(net, images, Target.of(1, images))
    if len(raw) != len(images) or not bool(raw.isfinite().all()):
        raise ContractError(
            f"{method.spec.name} gives maps that are not finite, or too few, for {what}"
        )


def runs_or_refuses_clearly(method: Method) -> None:
    """Nets with max-pooling, of tokens, and linear ones: a map, or xcam's own sentence."""
    nets = [
        SmallCNN(inplace=True),
        TokenNet(),
        LinearNet((3, 16, 16)),
        ProbeNet("none"),
    ]
    for net in nets:
        try:
            explained(method, net, pictures(2), 1)
        except (XcamError, TypeError, ValueError):
            continue
        except Exception as error:
            raise ContractError(
                f"{method.spec.name} fails on a {type(net).__name__} with "
                f"{type(error).__name__}: {error}; run, or raise a LayerError that says why not"
            ) from error


def stays_on_device(method: Method) -> None:
    """No `.cpu()`, `.to("cpu")`, `.numpy()`, or `.tolist()` of floats inside `maps`."""
    images = pictures()
    method, net = placed(method), carrier(method, ProbeNet()).requires_grad_(False)
    try:
        with StayOnDevice():
            method.maps(net, images, Target.of(CLASSES, images))
    except LeftDeviceError as error:
        raise ContractError(
            f"{method.spec.name} moves values to the host by Tensor.{error}; compute with tensors "
            "on the images' device"
        ) from error


def follows_the_target(method: Method) -> None:
    """Another class gives another map if `spec.class_specific`, and the same one if not."""
    first, second = (explained(method, target=target).raw for target in (0, 1))
    off, specific = distance(second, first), method.spec.class_specific
    if specific and off < _DIFFERENT:
        raise ContractError(
            f"{method.spec.name} ignores the target: two classes have the same map; set "
            "spec.class_specific=False if that is meant"
        )
    if not specific and off > _SAME:
        raise ContractError(
            f"{method.spec.name} depends on the target, but has spec.class_specific=False"
        )


def follows_the_target_of_each_image(method: Method) -> None:
    """Different targets in one call give the maps of one call each."""
    together = explained(method).raw
    for index, target in enumerate(CLASSES):
        alone = explained(method, images=pictures()[index : index + 1], target=target).raw
        if distance(together[index : index + 1], alone) > _SAME:
            raise ContractError(
                f"{method.spec.name} mixes up the targets of a batch: image {index} has another "
                "map in a call of its own; hand target.scores the row of each score"
            )


def takes_every_kind_of_target(method: Method) -> None:
    """An int, ints, a tensor and None mean the same where they name the same classes."""
    predicted = explained(method, target=None)
    if predicted.logits is None or predicted.target is None:
        raise ContractError(f"{method.spec.name} loses the logits or the predicted class")
    if not torch.equal(predicted.target, predicted.logits.argmax(1)):
        raise ContractError(f"{method.spec.name} explains another class than the predicted one")
    pairs: list[tuple[str, TargetLike, TargetLike]] = [
        ("an int and a list", 2, [2] * 5),
        ("a list and a tensor", list(CLASSES), torch.tensor(CLASSES)),
        ("None and the predicted classes", None, predicted.target),
    ]
    for what, one, other in pairs:
        if distance(explained(method, target=one).raw, explained(method, target=other).raw) > _SAME:
            raise ContractError(
                f"{method.spec.name} gives other maps for {what} that name the same classes"
            )


def takes_a_callable(method: Method) -> None:
    """A callable that reads off a class's logit (or probability) gives that class's map."""
    reference = explained(method).raw
    transforms: list[Callable[[Tensor], Tensor]] = [
        lambda logits: logits,
        lambda logits: logits.softmax(1),
        lambda logits: logits.log_softmax(1),
    ]

    def read(transform: Callable[[Tensor], Tensor]) -> TargetLike:
        classes = torch.tensor(CLASSES)
        return lambda output, rows: transform(output).gather(1, classes[rows, None])[:, 0]  # type: ignore[arg-type]

    found = [explained(method, target=read(transform)).raw for transform in transforms]
    if min(distance(raw, reference) for raw in found) > _SAME:
        raise ContractError(
            f"{method.spec.name} gives other maps for a callable that reads off the same score; "
            "hand target.scores the row of each score, and use what it returns"
        )


TARGETS = (
    follows_the_target,
    follows_the_target_of_each_image,
    takes_every_kind_of_target,
    takes_a_callable,
)

CHECKS = (
    gives_maps,
    keeps_the_aspect,
    takes_grey_images,
    takes_flat_images,
    takes_dead_features,
    runs_or_refuses_clearly,
    stays_on_device,
)
