"""Frozen settings that check themselves: the base of methods and metrics."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import inspect
import math
import numbers
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Count", "NonNegative", "OptionalPreset", "Positive", "Range", "Settings", "Share"]


@dataclasses.dataclass(frozen=True)
class Range:
    """Bounds of a setting, for `Annotated[float, Range(above=0, below=1)]`.

    Attributes:
        least: The smallest number that is allowed.
        most: The largest one.
        above: All numbers must be larger.
        below: All numbers must be smaller.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        """Return whether a number is within the bounds; NaN never is."""
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Return the bounds in words, such as "of at least 1" or "in (0, 1]"."""
        low = f"[{self.least}" if self.least is not None else f"({self.above}"
        high = f"{self.most}]" if self.most is not None else f"{self.below})"
        if "None" not in low + high:
            return f"in {low}, {high}"
        words = {
            "of at least": self.least,
            "above": self.above,
            "of at most": self.most,
            "below": self.below,
        }
        return " and ".join(f"{word} {bound}" for word, bound in words.items() if bound is not None)


Count: TypeAlias = Annotated[int, Range(least=1)]
"""How many of something there are: at least 1."""

Positive: TypeAlias = Annotated[float, Range(above=0)]
NonNegative: TypeAlias = Annotated[float, Range(least=0)]

Share: TypeAlias = Annotated[float, Range(least=0, most=1)]
"""A part of a whole, in [0, 1]."""


class OptionalPreset(dict[str, str]):
    """The setting `preset` of a named base, to be left out if the base has no such preset."""


class _InitSignature:
    """Shows a class by the signature of its `__init__`, and hides that of `Settings.__new__`."""

    def __get__(self, instance: object, owner: type) -> inspect.Signature | None:
        if instance is not None:
            return None
        signature = inspect.signature(owner.__init__)  # type: ignore[misc]
        parameters = [
            # One of the same name as a method of the class has that for its default.
            each.replace(default=None) if inspect.isfunction(each.default) else each
            for each in list(signature.parameters.values())[1:]
        ]
        return signature.replace(parameters=parameters, return_annotation=signature.empty)


class Settings:
    """A frozen dataclass of settings, which are checked against their annotations.

    Checked are int, float, bool, str, Path, None, Tensor, `Literal`, `tuple[…, ...]`, `Annotated`
    with a `Range`, and unions of these; other annotations accept anything. A class that has presets
    declares them, and the field `preset: InitVar[str | None] = None`.

    Attributes:
        presets: Settings by the name of a preset. A preset fills in plain fields; a setting that
            is given beside it must have the preset's own value.
    """

    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    __signature__ = _InitSignature()

    def __new__(cls, *args: Any, **settings: Any) -> Self:  # noqa: ANN401 - those of any subclass
        """Check the settings that are given, before `__init__` mixes them with the defaults.

        Raises:
            TypeError: A setting that the class does not have, or a value of the wrong kind.
            ValueError: A value out of its range or choices, or one that contradicts the preset.
        """
        self = super().__new__(cls)
        owner = str(getattr(getattr(cls, "spec", None), "name", cls.__name__))
        names, hints = _read_parameters(cls)  # type: ignore[arg-type]  # a class is hashable
        given = dict(zip(names, args, strict=False)) | settings
        _check_names(owner, given, names)
        preset = given.pop("preset", None) if cls.presets else None
        for name, value in given.items():
            _check_value(owner, name, value, hints.get(name, Any), getattr(cls, name, None))
        if preset is not None:
            _check_preset(owner, preset, cls.presets, given)
        return self

    def __post_init__(self, preset: str | None = None) -> None:
        """Fill in the settings of a preset, and turn lists into tuples.

        A subclass with a `__post_init__` of its own calls this one first.
        """
        changes = dict(self.presets[preset]) if preset is not None else {}
        lists = {k: tuple(v) for k, v in self.parameters().items() if isinstance(v, list)}
        for name, value in (lists | changes).items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """Return all settings; of tensors the shape and of files the path, with their hashes."""
        values = (f"{name}={_show(value)}" for name, value in self.parameters().items())
        return f"{type(self).__name__}({', '.join(values)})"

    def parameters(self) -> dict[str, Any]:
        """Return the settings by name, in the order of their declaration."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # subclasses are dataclasses
        return {entry.name: getattr(self, entry.name) for entry in fields}


def _show(value: object) -> str:
    if isinstance(value, Path):
        if not value.is_file():
            return repr(str(value))
        return f"{str(value)!r}#{hashlib.sha256(value.read_bytes()).hexdigest()[:8]}"
    if not isinstance(value, Tensor):
        return repr(value)
    content = value.detach().float().cpu().numpy().tobytes()
    return f"tensor{tuple(value.shape)}#{hashlib.sha256(content).hexdigest()[:8]}"


@functools.cache
def _read_parameters(cls: type[Settings]) -> tuple[list[str], dict[str, Any]]:
    """Return the names that a class takes, and the annotations of its fields."""
    names = [
        name
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        known = vars(sys.modules[base.__module__])
        for name, annotation in inspect.get_annotations(base).items():
            # One by one: a name that only type checkers know must not hide the other fields.
            with suppress(AttributeError, NameError, TypeError):
                one = SimpleNamespace(__annotations__={name: annotation})
                hints |= get_type_hints(one, known, dict(vars(base)), include_extras=True)
    return names, hints


def _check_names(owner: str, given: Mapping[str, object], names: list[str]) -> None:
    for name in given:
        if not names:
            raise TypeError(f"{owner} has no parameters, got {name!r}")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
            raise TypeError(f"{owner} has no parameter {name!r}: did you mean {', '.join(near)}?")


def _check_preset(
    owner: str,
    preset: object,
    presets: Mapping[str, Mapping[str, object]],
    given: Mapping[str, object],
) -> None:
    if not isinstance(preset, str) or preset not in presets:
        names = ", ".join(map(repr, presets))
        raise ValueError(f"{owner} has the presets {names}, got {preset!r}")
    for name, value in presets[preset].items():
        if name in given and given[name] != value:
            raise ValueError(
                f"preset {preset!r} sets {name}={value!r}, got {name}={given[name]!r} beside it; "
                "leave one of them out"
            )


def _check_value(owner: str, name: str, value: object, hint: Any, default: object) -> None:  # noqa: ANN401
    error = _find_error(value, hint)
    if error is not None:
        numeric = isinstance(default, int | float | tuple) and not isinstance(default, bool)
        example = f", such as {default!r}" if numeric else ""
        remedy = f"; give ({value!r},)" if _find_error((value,), hint) is None else ""
        raise error(f"{owner}: {name} must be {_describe(hint)}{example}, got {value!r}{remedy}")


def _find_error(value: Any, hint: Any) -> type[Exception] | None:  # noqa: ANN401
    """Return which error an annotation calls for: of the kind, of the value, or none."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        kind, *bounds = arguments
        ranges = [bound for bound in bounds if isinstance(bound, Range)]
        error = _find_error(value, kind)
        return error or (None if all(value in bound for bound in ranges) else ValueError)
    if origin in (Union, UnionType):
        errors = [_find_error(value, alternative) for alternative in arguments]
        if None in errors:
            return None
        return ValueError if ValueError in errors else TypeError
    if origin is Literal:
        if any(type(value) is type(choice) and value == choice for choice in arguments):
            return None
        return ValueError if type(value) in map(type, arguments) else TypeError
    if origin is tuple and arguments[1:] == (...,):
        if not isinstance(value, tuple | list):
            return TypeError
        return next(filter(None, (_find_error(each, arguments[0]) for each in value)), None)
    if hint in (int, float):
        return _find_number_error(value, numbers.Integral if hint is int else numbers.Real)
    known = any(hint is kind for kind in _WORDS)
    return TypeError if known and not isinstance(value, hint) else None


def _find_number_error(value: Any, kind: type) -> type[Exception] | None:  # noqa: ANN401
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    return TypeError if not is_number else None if math.isfinite(value) else ValueError


_WORDS: dict[Any, str] = {
    int: "an int",
    float: "a finite number",
    bool: "True or False",
    str: "a string",
    NoneType: "None",
    Path: "a path",
    Tensor: "a tensor",
}


def _describe(hint: Any) -> str:  # noqa: ANN401
    """Return an annotation in words, such as "'zero', 'mean' or None"."""
    *others, last = _list_alternatives(hint)
    return f"{', '.join(others)} or {last}" if others else last


def _list_alternatives(hint: Any) -> list[str]:  # noqa: ANN401
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return [repr(choice) for choice in arguments]
    if origin in (Union, UnionType):
        # A tuple comes last: "None" behind it would read as one of its items.
        words = [words for each in arguments for words in _list_alternatives(each)]
        return sorted(words, key=lambda each: each.startswith("a tuple"))
    if origin is Annotated:
        return [" ".join([_describe(arguments[0]), *map(str, arguments[1:])])]
    if origin is tuple:
        return [f"a tuple, each {_describe(arguments[0])}"]
    return [_WORDS.get(hint, str(hint))]
