"""Methods by name or as objects."""

from __future__ import annotations

import dataclasses
from typing import Any

from xcam.core import Method
from xcam.registry import get_method

__all__ = ["resolve_method"]


def resolve_method(method: str | Method, params: dict[str, Any]) -> Method:
    """Return the method of a name, or a method object, with some parameters.

    Raises:
        TypeError: Neither a name nor a method, or a parameter of the wrong name or kind.
        ValueError: A parameter out of its range.
        UnknownNameError: No such method.
    """
    if isinstance(method, str):
        return get_method(method)(**params)
    if not isinstance(method, Method):
        raise TypeError(f"method must be a name or a Method object, got {method!r}")
    return dataclasses.replace(method, **params) if params else method  # type: ignore[type-var]
