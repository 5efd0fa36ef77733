"""Objects of torch's and torchvision's own classes, written as settings.

`{"name": "SGD", "lr": 0.1}` is `SGD(…, lr=0.1)`: what a recipe or a command line can hold.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from xcam.errors import unknown

__all__ = ["check_names", "check_number", "instantiate"]

T = TypeVar("T")


def instantiate(
    settings: Mapping[str, Any],
    classes: Mapping[str, Callable[..., T]],
    what: str,
    *args: Any,  # noqa: ANN401 - whatever the class takes
) -> T:
    """Create the object that some settings describe.

    Args:
        settings: The `"name"` of a class, and its arguments by their names.
        classes: Classes by name.
        what: What such an object is, for the messages: "optimizer".
        *args: Put before the arguments of the settings.

    Raises:
        TypeError: The settings are no mapping with a name, or the class does not have such an
            argument, or needs one that is not given.
        ValueError: The class refuses a value.
        UnknownNameError: None of the classes has this name.
    """
    if not isinstance(settings, Mapping) or not isinstance(settings.get("name"), str):
        raise TypeError(
            f"{what} must be a mapping with a name, such as {{'name': {next(iter(classes))!r}}}, "
            f"got {settings!r}"
        )
    given = {key: value for key, value in settings.items() if key != "name"}
    name = settings["name"]
    if name not in classes:
        raise unknown(what, name, classes)
    _check_arguments(f"{what} {name}", classes[name], given, len(args))
    try:
        return classes[name](*args, **given)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{what} {name}: {error} (given {given})") from error


def check_names(owner: str, given: Mapping[str, Any], known: list[str]) -> None:
    """Raise a `TypeError` that suggests similar names if a name is unknown."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            tail = f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(known)}"
            raise TypeError(f"{owner} has no argument {name!r}: {tail if known else 'it has none'}")


def check_number(name: str, value: object) -> None:
    """Raise a `TypeError` if a value is neither an int nor a float."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")


def check_count(name: str, value: object) -> None:
    """Raise a `ValueError` if a value is not a whole number of at least 1."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def _check_arguments(
    owner: str, cls: Callable[..., Any], given: Mapping[str, Any], taken: int
) -> None:
    parameters = list(inspect.signature(cls).parameters.values())
    if all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        check_names(owner, given, [p.name for p in parameters[taken:] if p.kind in named])
