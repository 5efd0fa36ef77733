"""Presets: the settings of a paper by one name, resolved to plain fields."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from xcam.core import Metric

__all__ = ["has_presets"]

M = TypeVar("M", bound=type[Metric])
Settings = Mapping[str, object]


def has_presets(presets: Mapping[str, Settings]) -> Callable[[M], M]:
    """Decorates a metric so that the name of a preset stands for its settings.

    A setting that is given beside a preset must be the preset's own value, also where it is the
    default: so it is the arguments that are looked at, which the dataclass's `__init__` would have
    mixed with the defaults. It raises a `ValueError` for another value and for an unknown name.

    Args:
        presets: The settings of each; the class has `preset: InitVar[str | None] = None`.
    """

    def decorate(cls: M) -> M:
        plain = cls.__init__
        signature = inspect.signature(plain)

        @functools.wraps(plain)
        def resolved(*args: Any, **settings: Any) -> None:  # noqa: ANN401 - any metric's settings
            given = signature.bind(*args, **settings).arguments
            preset = given.pop("preset", None)
            if preset is not None:
                given |= _chosen(cls.spec.name, presets, preset, given)
            plain(**given)

        cls.__init__ = resolved  # type: ignore[method-assign]
        return cls

    return decorate


def _chosen(metric: str, presets: Mapping[str, Settings], preset: str, given: Settings) -> Settings:
    if preset not in presets:
        names = ", ".join(map(repr, presets))
        raise ValueError(f"{metric} has the presets {names}, got {preset!r}")
    for name, value in presets[preset].items():
        if name in given and given[name] != value:
            raise ValueError(
                f"preset {preset!r} sets {name}={value!r}, got {name}={given[name]!r} beside it; "
                "leave one of them out"
            )
    return presets[preset]
