"""Presets: the settings of a paper by one name, resolved to plain fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from xcam.core import Metric

__all__ = ["take_preset"]


def take_preset(
    metric: Metric, preset: str | None, presets: Mapping[str, Mapping[str, object]]
) -> None:
    """Sets the fields that a preset names, for `__post_init__` of a metric; None sets nothing.

    Args:
        metric: Being made; its class takes `preset: InitVar[str | None] = None`.
        preset: A key of `presets`.
        presets: The fields of each.

    Raises:
        ValueError: There is no such preset, or one of its fields was given another value.
    """
    if preset is None:
        return
    if preset not in presets:
        names = ", ".join(map(repr, presets))
        raise ValueError(f"{metric.spec.name} has the presets {names}, got {preset!r}")
    defaults = {entry.name: entry.default for entry in dataclasses.fields(metric)}  # type: ignore[arg-type]
    for name, value in presets[preset].items():
        given = getattr(metric, name)
        if given not in (value, defaults[name]):
            raise ValueError(
                f"preset {preset!r} sets {name}={value!r}, got {name}={given!r} beside it; leave "
                "one of them out"
            )
        object.__setattr__(metric, name, value)
