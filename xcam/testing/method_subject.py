"""A method under test, and nets that carry its head."""

from __future__ import annotations

import copy
import warnings
from functools import cached_property
from types import EllipsisType

import torch
from torch import Tensor, nn

from xcam._explain.prepared import prepare
from xcam._explain.verb import explain
from xcam.core import (
    Explanation,
    Method,
    Target,
    TargetLike,
    TrainableMethod,
    attached_method,
    find_headed,
)
from xcam.errors import XcamWarning
from xcam.testing.probe import ContractError, Fuse, build_probe
from xcam.testing.subject import Case, Subject

__all__ = [
    "MethodSubject",
    "attach_head",
    "explain_quietly",
    "get_classifier",
    "prepare_net",
]


class MethodSubject(Subject[Method]):
    """A method under test; a trainable one runs on nets whose seeded head counts as fitted."""

    product = "maps"

    def place(self) -> MethodSubject:
        """Return the subject with its layer named, for nets on which another would be found."""
        other = copy.copy(self)
        other.settings = self.placed
        return other

    def build_net(self, net: nn.Module | None = None, fuse: Fuse | None = None) -> nn.Module:
        """Return the classifier, with its head for a trainable method."""
        net = attach_head(self.settings, super().build_net(net))
        if fuse is not None:
            fuse.install(get_classifier(net))
        return net

    @cached_property
    def placed(self) -> Method:
        """Return the method with its layer."""
        return prepare(self.build_net(), self._images[:1], self.settings).method

    def explain(
        self,
        case: Case | None = None,
        net: nn.Module | None = None,
        target: TargetLike | EllipsisType = ...,
        batch_size: int | None = None,
    ) -> Explanation:
        """Explain a case, for its classes or another target."""
        case = case or self.build_case()
        # Copies of one net have one layer for images of one shape: it is looked for once.
        is_usual = net is None and case.images.shape[1:] == self._images.shape[1:]
        method = self.placed if is_usual else self.settings
        net = self.lend_net(case.images) if net is None else self.build_net(net)
        chosen = list(case.classes) if isinstance(target, EllipsisType) else target
        return explain_quietly(method, net, case.images, chosen, batch_size)

    def run(
        self, case: Case | None = None, net: nn.Module | None = None, batch_size: int | None = None
    ) -> Tensor:
        """Return the raw maps of `explain`."""
        return self.explain(case, net, batch_size=batch_size).raw

    def call(
        self,
        case: Case | None = None,
        net: nn.Module | None = None,
        settings: Method | None = None,
    ) -> Tensor:
        """Return what `maps` gives on a frozen net."""
        case = case or self.build_case()
        net = self.lend_net(case.images, frozen=True) if net is None else self.build_net(net)
        target = Target.of(list(case.classes), case.images)
        return (settings or self.placed).maps(net.requires_grad_(False), case.images, target)

    def measure(self, values: Tensor, reference: Tensor) -> float:
        """Return the largest difference of any image's map, as a share of the reference's range.

        Where a reference map is flat its largest magnitude stands for the range, or 1 if it is 0.
        """
        flat = reference.flatten(1)
        span, magnitude = flat.amax(1) - flat.amin(1), flat.abs().amax(1)
        scale = torch.where(span > 0, span, torch.where(magnitude > 0, magnitude, 1))
        return float(((values - reference).flatten(1).abs().amax(1) / scale).max())


def attach_head(method: Method, net: nn.Module) -> nn.Module:
    """Return the net, or for a trainable method a copy with its head, seeded, as if trained.

    A net that carries a head stays as it is.
    """
    if not isinstance(method, TrainableMethod) or attached_method(net) is not None:
        return net
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        attached = method.attach(net)
    if attached_method(attached) is None:
        raise ContractError(
            f"{method.spec.name}: attach must return a Headed, alone or inside the model's "
            f"Normalized, got {type(attached).__name__}"
        )
    find_headed(attached).fitted = True
    return attached


def prepare_net(method: Method, net: nn.Module) -> nn.Module:
    """Return a net that the method explains: this one, with its head, or that of its spec."""
    return build_probe(method.spec) if method.spec.net else attach_head(method, net)


def get_classifier(net: nn.Module) -> nn.Module:
    """Return the classifier in a net that carries a head, or the net."""
    return net if attached_method(net) is None else find_headed(net).classifier


def explain_quietly(
    method: Method,
    net: nn.Module,
    images: Tensor,
    target: TargetLike = None,
    batch_size: int | None = None,
) -> Explanation:
    """Explain images without showing notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XcamWarning)
        return explain(attach_head(method, net), images, target, method, batch_size=batch_size)
