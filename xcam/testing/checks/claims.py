"""What a method or metric says about itself is true: its spec, flag by flag."""

from __future__ import annotations

import math
from typing import get_args

from xcam.core import MethodSpec, MetricSpec, TrainableMethod, Truth
from xcam.testing.checks.facets import AnySubject
from xcam.testing.method_subject import MethodSubject, get_classifier
from xcam.testing.metric_subject import MetricSubject
from xcam.testing.probe import ContractError, Fuse, identify, replace_relus

__all__ = ["METHODS", "METRICS", "has_a_spec"]

_FLAGS = (
    "class_specific",
    "stochastic",
    "signed",
    "normalized",
    "alters_model",
    "alters_prediction",
)


def has_a_spec(subject: AnySubject) -> None:
    """Require a spec with a name, a title and what else cannot be derived."""
    spec, kind = subject.spec, type(subject.settings).__name__
    if not (spec.name.isidentifier() and spec.name == spec.name.lower()):
        raise ContractError(f"{kind}: spec.name must be a lower-case identifier, got {spec.name!r}")
    sort = "family" if isinstance(spec, MethodSpec) else "question"
    needed = ["title", "cost", sort, *(["formula"] if isinstance(spec, MetricSpec) else [])]
    if getattr(spec, sort) != "control":
        needed.append("paper")
    for name in needed:
        if not getattr(spec, name).strip():
            raise ContractError(f"{kind}: spec.{name} is empty")
    if isinstance(spec, MethodSpec):
        _check_method_spec(spec, kind, isinstance(subject.settings, TrainableMethod))
    else:
        _check_metric_spec(spec, kind)


def _check_method_spec(spec: MethodSpec, kind: str, trainable: bool) -> None:
    if (spec.family == "trainable") != trainable:
        raise ContractError(f"{kind}: TrainableMethods, and only they, are of family 'trainable'")
    wrong = [name for name in _FLAGS if not isinstance(getattr(spec, name), bool)]
    if wrong:
        raise ContractError(f"{kind}: spec.{wrong[0]} must be True or False")


def _check_metric_spec(spec: MetricSpec, kind: str) -> None:
    if spec.truth not in get_args(Truth):
        raise ContractError(f"{kind}: spec.truth is one of {get_args(Truth)}, got {spec.truth!r}")
    if spec.question == "localization" and spec.truth not in ("boxes", "masks"):
        raise ContractError(f"{kind}: localization needs boxes or masks, got {spec.truth!r}")
    if spec.higher_is_better not in (True, False, None):
        raise ContractError(f"{kind}: spec.higher_is_better must be True, False or None")
    low, high = spec.bounds
    if math.isnan(low) or math.isnan(high) or low >= high:
        raise ContractError(f"{kind}: spec.bounds must ascend, got {spec.bounds}")


def tells_whether_signed(subject: MethodSubject) -> None:
    """Require a negative value somewhere if `spec.signed`, and nowhere if not.

    Where only some settings give signed maps, `relu=False`, `reduce="sum"` and `output="logit"` are
    tried as well.
    """
    if not subject.settings.spec.signed:
        if _has_negatives(subject):
            raise ContractError(f"{subject.name} gives negative values, but has spec.signed=False")
        return
    settings = {"relu": False, "reduce": "sum", "output": "logit"}
    known = subject.settings.parameters()
    signed = subject.replace(**{name: settings[name] for name in settings if name in known})
    if not _has_negatives(subject) and not _has_negatives(signed):
        raise ContractError(
            f"{subject.name} gives no negative value anywhere, but has spec.signed=True"
        )


def _has_negatives(subject: MethodSubject) -> bool:
    """Look for a negative value over a few classes, with and without ReLUs in the net."""
    case = subject.build_case().select(range(3))
    net = subject.copy_net()
    return any(
        bool((subject.explain(case, subject.build_net(each), target).maps < 0).any())
        for each in (net, replace_relus(net, "none"))
        for target in sorted(set(subject.build_case().classes))[:3]
    )


def tells_whether_normalized(subject: MethodSubject) -> None:
    """Require values in [0, 1] alone if `spec.normalized`."""
    if not subject.settings.spec.normalized:
        return
    maps = subject.explain().maps
    lowest, highest = float(maps.min()), float(maps.max())
    if lowest < 0 or highest > 1:
        raise ContractError(
            f"{subject.name} gives values from {lowest:.3g} to {highest:.3g}, but has "
            "spec.normalized=True"
        )


def tells_whether_it_alters_the_model(subject: MethodSubject) -> None:
    """Require passes of the given model as it is, or of a changed copy if `spec.alters_model`."""
    fuse = Fuse()
    net = subject.build_net(fuse=fuse)
    given = identify(get_classifier(net))
    subject.place().explain(net=net)
    altered = any(runner != given for runner in fuse.runners)
    if altered and not subject.settings.spec.alters_model:
        raise ContractError(
            f"{subject.name} runs a changed copy of the model; set spec.alters_model=True"
        )
    if not altered and subject.settings.spec.alters_model:
        raise ContractError(f"{subject.name} runs the model as it is; set spec.alters_model=False")


def costs_what_it_says(subject: MetricSubject) -> None:
    """Require no pass if `spec.cost` is "0", and some otherwise."""
    fuse = Fuse()
    subject.run(net=subject.build_net(fuse=fuse))
    cost = subject.settings.spec.cost
    if (cost.strip() == "0") != (fuse.passes == 0):
        raise ContractError(
            f"{subject.name} makes {fuse.passes} passes, but has spec.cost={cost!r}"
        )


METHODS = (tells_whether_signed, tells_whether_normalized, tells_whether_it_alters_the_model)
METRICS = (costs_what_it_says,)
