"""Methods by name or as objects, their parameters checked before any pass."""

from __future__ import annotations

import dataclasses
import difflib
import numbers
from typing import Any, get_args, get_type_hints

from xcam.core import Method, Output, Reduce
from xcam.registry import get_method

__all__ = ["resolve_method"]

# Fields that mean the same in every method are checked here, before any pass.
_CHOICES: dict[str, tuple[str, ...]] = {"output": get_args(Output), "reduce": get_args(Reduce)}
# What a parameter takes that is annotated as one of these, or as one of these or None.
_KINDS: tuple[tuple[type, type, str], ...] = (
    (int, numbers.Integral, "an int, such as 4"),
    (float, numbers.Real, "a number, such as 0.5"),
    (bool, bool, "True or False"),
)


def resolve_method(method: str | Method, params: dict[str, Any]) -> Method:
    """Return the method of a name, or a method object, with some parameters, checked.

    Raises:
        TypeError: Neither a name nor a method, or a parameter of the wrong name or kind.
        ValueError: A parameter out of its range.
        UnknownNameError: No such method.
    """
    if isinstance(method, str):
        cls: type[Method] = get_method(method)
    elif isinstance(method, Method):
        cls = type(method)
    else:
        raise TypeError(f"method must be a name or a Method object, got {method!r}")
    _check_names(cls, params)
    _check_kinds(cls, method.parameters() | params if isinstance(method, Method) else params)
    chosen = dataclasses.replace(method, **params) if isinstance(method, Method) else cls(**params)  # type: ignore[type-var]
    for name, choices in _CHOICES.items():
        value = chosen.parameters().get(name, choices[0])
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return chosen


def _check_names(cls: type[Method], params: dict[str, Any]) -> None:
    known = [entry.name for entry in dataclasses.fields(cls) if entry.init]  # type: ignore[arg-type]
    for name in params:
        if not known:
            raise TypeError(f"{cls.spec.name} has no parameters, got {name!r}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
            raise TypeError(
                f"{cls.spec.name} has no parameter {name!r}: did you mean {', '.join(near)}?"
            )


def _check_kinds(cls: type[Method], given: dict[str, Any]) -> None:
    try:
        hints = get_type_hints(cls)
    except (AttributeError, NameError, TypeError):  # a plugin's, for type checkers alone
        return
    for name, value in given.items():
        for kind, accepted, words in _KINDS:
            optional = hints.get(name) == kind | None
            fits = isinstance(value, accepted) and isinstance(value, bool) == (kind is bool)
            if (optional or hints.get(name) is kind) and not (fits or (optional and value is None)):
                words += " or None" if optional else ""
                raise TypeError(f"{cls.spec.name} takes {name} as {words}, got {value!r}")
