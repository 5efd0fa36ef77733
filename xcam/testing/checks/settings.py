"""What methods and metrics promise alike: frozen settings that print, pickle and compare."""

from __future__ import annotations

import dataclasses
import pickle

import torch
from torch import Tensor

from xcam.core import Settings
from xcam.testing.checks.facets import AnySubject
from xcam.testing.probe import ContractError

__all__ = ["CHECKS"]


def is_a_frozen_dataclass(subject: AnySubject) -> None:
    """Require a class decorated itself, frozen, with a default for each field."""
    kind = type(subject.settings)
    options = vars(kind).get("__dataclass_params__")
    if options is None or not options.frozen:
        raise ContractError(f"{kind.__name__} must be decorated with @dataclass(frozen=True)")
    for entry in dataclasses.fields(kind):  # type: ignore[arg-type]
        missing = dataclasses.MISSING
        if entry.init and entry.default is missing and entry.default_factory is missing:
            raise ContractError(f"{kind.__name__}: field {entry.name!r} needs a default")


def survives_pickling(subject: AnySubject) -> None:
    """Require that it loads as an equal object, so that worker processes can have it."""
    settings = subject.settings
    try:
        loaded = pickle.loads(pickle.dumps(settings))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ContractError(
            f"{subject.name} cannot be pickled: {error}; a generated class needs its "
            "__module__ and __qualname__, and to be found there"
        ) from error
    if repr(loaded) != repr(settings) or not _is_equal(loaded, settings):
        raise ContractError(f"{subject.name} comes back from pickling as {loaded!r}")


def _is_equal(first: Settings, second: Settings) -> bool:
    """Compare by value; a class with a tensor field compares itself by identity."""
    mine, yours = first.parameters(), second.parameters()
    return mine.keys() == yours.keys() and all(
        torch.equal(mine[name], value) if isinstance(value, Tensor) else mine[name] == value
        for name, value in yours.items()
    )


def shows_its_settings(subject: AnySubject) -> None:
    """Require a repr of the class's name and every field with its value, on one line."""
    text, kind = repr(subject.settings), type(subject.settings)
    missing = [name for name in subject.settings.parameters() if f"{name}=" not in text]
    heads = (f"{kind.__name__}(", f"{kind.__qualname__}(")
    if missing or not text.startswith(heads) or "\n" in text:
        raise ContractError(
            f"{subject.name}: the repr must name every field on one line, got {text!r}; a "
            "class with a tensor field is a @dataclass(frozen=True, eq=False, repr=False)"
        )


CHECKS = (is_a_frozen_dataclass, survives_pickling, shows_its_settings)
