"""Hooks that a plugin implements; see `docs/plugins.md` for a complete package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from xcam.core import Method, Metric

__all__ = ["PROJECT", "hookimpl", "xcam_methods", "xcam_metrics"]

PROJECT = "xcam"
"""The name of the entry-point group, and of the pluggy project."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def xcam_methods() -> list[type[Method]]:  # type: ignore[empty-body]
    """Return the method classes that a package provides."""


@hookspec
def xcam_metrics() -> list[type[Metric]]:  # type: ignore[empty-body]
    """Return the metric classes that a package provides."""
