"""What a method gives: maps of the right kind, of the right target."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from xcam.core import TargetLike
from xcam.errors import XcamError
from xcam.models.toy import LinearNet, SmallCNN, TokenNet
from xcam.testing.checks.inputs import make_oblong_images
from xcam.testing.method_subject import MethodSubject, explain_quietly
from xcam.testing.probe import ContractError, ProbeNet, kill_features, replace_relus, sample_images
from xcam.testing.subject import TOLERANCE

__all__ = ["CHECKS"]

_DIFFERENT = 1e-3


def gives_maps(subject: MethodSubject) -> None:
    """Require (B, h, w) of more than one cell, or a value for each element; finite floats."""
    case = subject.build_case()
    raw: object = subject.call(case)
    if not isinstance(raw, Tensor) or not raw.is_floating_point():
        kind = raw.dtype if isinstance(raw, Tensor) else type(raw).__name__
        raise ContractError(f"{subject.name} must give a floating-point tensor, got {kind}")
    shape = tuple(case.images.shape)
    is_map = raw.ndim == 3 and len(raw) == len(case.images) and raw[0].numel() > 1
    if not is_map and raw.shape != shape:
        raise ContractError(
            f"{subject.name} must give (B, h, w) maps or {shape}, a value an element, got "
            f"{tuple(raw.shape)}"
        )
    if not bool(raw.isfinite().all()):
        raise ContractError(f"{subject.name} gives maps that are not finite")


def keeps_the_aspect(subject: MethodSubject) -> None:
    """Require maps that are not tall for wide images, and not wide for tall ones."""
    for images in make_oblong_images(subject):
        (height, width), case = images.shape[2:], subject.build_case(images)
        h, w = subject.run(case).shape[-2:]
        if (h - w) * (height - width) < 0:
            raise ContractError(
                f"{subject.name} gives {h}×{w} maps for {height}×{width} images; the "
                "first axis of a map is its height"
            )


def takes_dead_features(subject: MethodSubject) -> None:
    """Require finite maps where features are zero everywhere: no division by their sum or range."""
    case = subject.build_case().select([0, 1])
    net = subject.build_net(kill_features(subject.copy_net()))
    subject.require_finite(subject.call(case, net), case, "features that are zero everywhere")


def runs_or_refuses_clearly(subject: MethodSubject) -> None:
    """Require a map, or xcam's own sentence, on nets with max-pooling, of tokens, and linear."""
    signed = replace_relus(ProbeNet(), "none")
    for net in (SmallCNN(inplace=True), TokenNet(), LinearNet((3, 16, 16)), signed):
        try:
            explain_quietly(subject.settings, net, sample_images(2), 1)
        except (XcamError, TypeError, ValueError):
            continue
        except Exception as error:
            raise ContractError(
                f"{subject.name} fails on a {type(net).__name__} with {type(error).__name__}: "
                f"{error}; run, or raise a LayerError that says why not"
            ) from error


def follows_the_target(subject: MethodSubject) -> None:
    """Require another map for another class if `spec.class_specific`, and the same one if not."""
    first, second = (subject.explain(target=target).raw for target in (0, 1))
    off, specific = subject.measure(second, first), subject.settings.spec.class_specific
    if specific and off < _DIFFERENT:
        raise ContractError(
            f"{subject.name} ignores the target: two classes have the same map; set "
            "spec.class_specific=False if that is meant"
        )
    if not specific and off > TOLERANCE:
        raise ContractError(
            f"{subject.name} depends on the target, but has spec.class_specific=False"
        )


def takes_every_kind_of_target(subject: MethodSubject) -> None:
    """Require the same of an int, ints, a tensor and None that name the same classes."""
    predicted, classes = subject.explain(target=None), subject.build_case().classes
    if predicted.logits is None or predicted.target is None:
        raise ContractError(f"{subject.name} loses the logits or the predicted class")
    if not torch.equal(predicted.target, predicted.logits.argmax(1)):
        raise ContractError(f"{subject.name} explains another class than the predicted one")
    one = classes[0]
    pairs: list[tuple[str, Tensor, TargetLike]] = [
        ("an int and a list", subject.explain(target=one).raw, [one] * len(classes)),
        ("a list and a tensor", subject.reference, torch.tensor(classes)),
        ("None and the predicted classes", predicted.raw, predicted.target),
    ]
    for what, raw, other in pairs:
        if subject.measure(raw, subject.explain(target=other).raw) > TOLERANCE:
            raise ContractError(
                f"{subject.name} gives other maps for {what} that name the same classes"
            )


def takes_a_callable(subject: MethodSubject) -> None:
    """Require a class's map of a callable that reads off its logit (or probability)."""
    reference = subject.reference
    transforms: list[Callable[[Tensor], Tensor]] = [
        lambda logits: logits,
        lambda logits: logits.softmax(1),
        lambda logits: logits.log_softmax(1),
    ]

    def read(transform: Callable[[Tensor], Tensor]) -> TargetLike:
        classes = torch.tensor(subject.build_case().classes)
        return lambda output, rows: transform(output).gather(1, classes[rows, None])[:, 0]  # type: ignore[arg-type]

    found = [subject.explain(target=read(transform)).raw for transform in transforms]
    if min(subject.measure(raw, reference) for raw in found) > TOLERANCE:
        raise ContractError(
            f"{subject.name} gives other maps for a callable that reads off the same score; "
            "hand target.scores the row of each score, and use what it returns"
        )


CHECKS = (
    gives_maps,
    keeps_the_aspect,
    takes_dead_features,
    runs_or_refuses_clearly,
    follows_the_target,
    takes_every_kind_of_target,
    takes_a_callable,
)
