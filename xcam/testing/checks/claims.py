"""What a method says about itself is true: its spec, flag by flag."""

from __future__ import annotations

import dataclasses
from typing import get_args

from xcam.core import Family, Method, MethodSpec, TrainableMethod
from xcam.testing.probe import (
    CLASSES,
    ContractError,
    ProbeNet,
    carrier,
    explained,
    pictures,
    placed,
    probe_of,
)

__all__ = ["CHECKS", "has_a_spec"]


def has_a_spec(method: Method) -> None:
    """Name, title, family, cost and flags are filled in; a paper, unless it is a control."""
    spec, kind = getattr(method, "spec", None), type(method).__name__
    if not isinstance(spec, MethodSpec):
        raise ContractError(f"{kind} must have a class attribute `spec`, a MethodSpec")
    if not (spec.name.isidentifier() and spec.name == spec.name.lower()):
        raise ContractError(f"{kind}: spec.name must be a lower-case identifier, got {spec.name!r}")
    if spec.family not in get_args(Family):
        raise ContractError(f"{kind}: there is no spec.family {spec.family!r}")
    if (spec.family == "trainable") != isinstance(method, TrainableMethod):
        raise ContractError(f"{kind}: TrainableMethods, and only they, are of family 'trainable'")
    needed = ("title", "cost") if spec.family == "control" else ("title", "cost", "paper")
    empty = [name for name in needed if not getattr(spec, name).strip()]
    if empty:
        raise ContractError(f"{kind}: spec.{empty[0]} is empty")
    flags = ("class_specific", "stochastic", "signed", "alters_model", "normalized")
    wrong = [name for name in flags if not isinstance(getattr(spec, name), bool)]
    if wrong:
        raise ContractError(f"{kind}: spec.{wrong[0]} must be True or False")


def tells_whether_signed(method: Method) -> None:
    """No map with a negative value if not `spec.signed`; somewhere a negative value if it is.

    Where only some settings give signed maps, `relu=False`, `reduce="sum"` and `output="logit"` are
    tried as well.
    """
    if not method.spec.signed:
        if _lowest(method) < 0:
            raise ContractError(
                f"{method.spec.name} gives negative values, but has spec.signed=False"
            )
        return
    settings = {"relu": False, "reduce": "sum", "output": "logit"}
    known = {name: value for name, value in settings.items() if name in method.parameters()}
    signed: Method = dataclasses.replace(method, **known)  # type: ignore[type-var]
    if _lowest(method) >= 0 and _lowest(signed) >= 0:
        raise ContractError(
            f"{method.spec.name} gives no negative value anywhere, but has spec.signed=True"
        )


def _lowest(method: Method) -> float:
    """The lowest value over a few classes, with and without ReLUs in the net."""
    nets = (ProbeNet(), ProbeNet("none"))
    found = [explained(method, net, pictures(3), c).maps for net in nets for c in CLASSES[:3]]
    return min(float(maps.min()) for maps in found)


def tells_whether_normalized(method: Method) -> None:
    """Every value of the maps lies in [0, 1] if `spec.normalized`."""
    if not method.spec.normalized:
        return
    maps = explained(method).maps
    lowest, highest = float(maps.min()), float(maps.max())
    if lowest < 0 or highest > 1:
        raise ContractError(
            f"{method.spec.name} gives values from {lowest:.3g} to {highest:.3g}, but has "
            "spec.normalized=True"
        )


def tells_whether_it_alters_the_model(method: Method) -> None:
    """Passes run on the given model as it is, or on a changed copy if `spec.alters_model`."""
    net, method = carrier(method, ProbeNet()), placed(method)
    probe = probe_of(net)
    given = (id(probe), tuple(type(module) for module in probe.modules()))
    explained(method, net)
    altered = any(runner != given for runner in probe.fuse.runners)
    if altered and not method.spec.alters_model:
        raise ContractError(
            f"{method.spec.name} runs a changed copy of the model; set spec.alters_model=True"
        )
    if not altered and method.spec.alters_model:
        raise ContractError(
            f"{method.spec.name} runs the model as it is; set spec.alters_model=False"
        )


CHECKS = (
    tells_whether_signed,
    tells_whether_normalized,
    tells_whether_it_alters_the_model,
)
