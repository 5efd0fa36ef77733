"""What methods and metrics promise alike: frozen settings that print, pickle and compare."""

from __future__ import annotations

import dataclasses
import pickle

import torch
from torch import Tensor

from xcam.core import Method, Metric
from xcam.testing.probe import ContractError

__all__ = ["CHECKS"]


def is_a_frozen_dataclass(subject: Method | Metric) -> None:
    """Decorated itself, frozen, with a default for each field."""
    kind = type(subject)
    options = vars(kind).get("__dataclass_params__")
    if options is None or not options.frozen:
        raise ContractError(f"{kind.__name__} must be decorated with @dataclass(frozen=True)")
    for entry in dataclasses.fields(subject):  # type: ignore[arg-type]
        missing = dataclasses.MISSING
        if entry.init and entry.default is missing and entry.default_factory is missing:
            raise ContractError(f"{kind.__name__}: field {entry.name!r} needs a default")


def survives_pickling(subject: Method | Metric) -> None:
    """Loads as an equal object, so that worker processes can have it."""
    try:
        loaded = pickle.loads(pickle.dumps(subject))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ContractError(
            f"{subject.spec.name} cannot be pickled: {error}; a generated class needs its "
            "__module__ and __qualname__, and to be found there"
        ) from error
    if repr(loaded) != repr(subject) or not _equal(loaded, subject):
        raise ContractError(f"{subject.spec.name} comes back from pickling as {loaded!r}")


def _equal(first: Method | Metric, second: Method | Metric) -> bool:
    """By value; a class with a tensor field compares by identity."""
    mine, yours = first.parameters(), second.parameters()
    return mine.keys() == yours.keys() and all(
        torch.equal(mine[name], value) if isinstance(value, Tensor) else mine[name] == value
        for name, value in yours.items()
    )


def shows_its_recipe(subject: Method | Metric) -> None:
    """The repr is the class's name and every field with its value, and on one line."""
    text = repr(subject)
    missing = [name for name in subject.parameters() if f"{name}=" not in text]
    heads = (f"{type(subject).__name__}(", f"{type(subject).__qualname__}(")
    if missing or not text.startswith(heads) or "\n" in text:
        raise ContractError(
            f"{subject.spec.name}: the repr must name every field on one line, got {text!r}; a "
            "class with a tensor field is a @dataclass(frozen=True, eq=False, repr=False)"
        )


CHECKS = (
    is_a_frozen_dataclass,
    survives_pickling,
    shows_its_recipe,
)
