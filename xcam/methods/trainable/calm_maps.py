"""The score maps of CALM, by name, and superclasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from xcam import imaging
from xcam.methods.trainable.calm_head import CueHead, compute_log_joint, compute_posterior

__all__ = [
    "IN_UNIT_RANGE",
    "OF_NO_CLASS",
    "MapName",
    "Superclasses",
    "make_class_maps",
    "make_membership",
    "parse_superclasses",
]

MapName = Literal[
    "vanilla",
    "vanilla_saliency",
    "vanilla_superclass",
    "saliency",
    "gtcond",
    "gtcond_superclass",
    "gtcond_superclass_mean",
    "jointll",
    "jointll_superclass",
    "jointll_superclass_mean",
]
Superclasses: TypeAlias = (
    Mapping[str, Sequence[int]]
    | Mapping[int, Sequence[int]]
    | tuple[tuple[str | int, tuple[int, ...]], ...]
)

OF_NO_CLASS = frozenset({"vanilla_saliency", "saliency"})
IN_UNIT_RANGE = frozenset(
    {
        "saliency",
        "gtcond",
        "gtcond_superclass_mean",
        "jointll",
        "jointll_superclass",
        "jointll_superclass_mean",
    }
)

_EXAMPLE = "such as {'dog': [3, 5], 'bird': [0, 1, 2]}"


def make_class_maps(name: str, head: CueHead, features: Tensor, epsilon: float) -> Tensor:
    """Return the maps (B, C, h, w) of all classes, or (B, 1, h, w) of none.

    Args:
        name: Of a `MapName`; superclasses are left to the caller.
        head: The head of a net.
        features: (B, D, h, w).
        epsilon: What is added to p(y|x) before it divides.
    """
    if name == "vanilla":
        return head.classify(features)
    if name.startswith("vanilla"):
        scaled = imaging.normalize(head.classify(features))
        return scaled.sum(1, keepdim=True) if name == "vanilla_saliency" else scaled
    distribution: tuple[Tensor, Tensor] = head(features)
    log_likelihood, prior = distribution
    if name == "saliency":
        return prior
    log_joint = compute_log_joint(log_likelihood, prior)
    return log_joint.exp() if name.startswith("jointll") else compute_posterior(log_joint, epsilon)


def parse_superclasses(given: object) -> tuple[tuple[str | int, tuple[int, ...]], ...]:
    """Return superclasses as pairs of a key and its classes, which can be compared and saved.

    Args:
        given: A mapping, or such pairs. The keys are names of superclasses, which share no class;
            or classes, each among the classes of its own superclass.

    Raises:
        TypeError: Neither, or keys or classes of another kind.
        ValueError: A superclass without classes, a class below 0, one that two named superclasses
            share, or a key that is not among its own classes.
    """
    try:
        pairs = [*(given.items() if isinstance(given, Mapping) else given)]  # type: ignore[misc]
        found = tuple((_read_key(key), tuple(map(_read_class, members))) for key, members in pairs)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"superclasses must map names, or classes, to lists of classes, {_EXAMPLE}, got "
            f"{given!r}"
        ) from error
    if not found or len({isinstance(key, str) for key, _ in found}) > 1:
        raise ValueError(
            f"superclasses must have either names or classes as their keys, {_EXAMPLE}, got "
            f"{given!r}"
        )
    for key, members in found:
        if not members or min(members) < 0:
            raise ValueError(f"superclasses: {key!r} must have classes from 0 on, got {members}")
        if isinstance(key, int) and key not in members:
            raise ValueError(
                f"superclasses: class {key} must be among the classes of its own superclass, got "
                f"{members}; give superclasses names, {_EXAMPLE}"
            )
    _check_disjoint(found)
    return found


def _check_disjoint(pairs: Sequence[tuple[str | int, tuple[int, ...]]]) -> None:
    owners: dict[int, str] = {}
    for key, members in pairs:
        for member in set(members) if isinstance(key, str) else ():
            if member in owners:
                raise ValueError(
                    f"superclasses: class {member} is in {owners[member]!r} and in {key!r}; leave "
                    "it out of one"
                )
            owners[member] = str(key)


def _read_key(key: object) -> str | int:
    return key if isinstance(key, str) else _read_class(key)


def _read_class(number: object) -> int:
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise TypeError(f"{number!r} is no class")
    return int(number.__index__())


def make_membership(
    pairs: Sequence[tuple[str | int, tuple[int, ...]]], num_classes: int, mean: bool
) -> Tensor:
    """Return the weights (C, C) of all classes in the map of each: 1, or one over their number.

    A class in no superclass is one of its own.

    Raises:
        ValueError: A class that the net does not have.
    """
    largest = max(max(members) for _, members in pairs)
    if largest >= num_classes:
        raise ValueError(f"superclasses has class {largest}, and the net has {num_classes} classes")
    weights = torch.eye(num_classes)
    for key, members in pairs:
        chosen = sorted(set(members))
        for row in chosen if isinstance(key, str) else [key]:
            weights[row, chosen] = 1 / len(chosen) if mean else 1.0
    return weights
