"""Hooks that a plugin implements; see `docs/howto/plugins.md` for a complete package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from xcam.core import Method, Metric

__all__ = ["PROJECT", "hookimpl", "xcam_methods", "xcam_metrics", "xcam_models"]

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


@hookspec
def xcam_models() -> dict[str, Callable[..., nn.Module]]:  # type: ignore[empty-body]
    """Return what makes each net that a package provides, by `"provider:name"`.

    A class or a function, whose parameters are what `xcam.models.load` takes beside the name. One
    that has pretrained weights takes `weights`: None, or the name that the user gave. It returns a
    classifier of images in [0, 1]; a net with a normalization of its own in a
    `xcam.models.Normalized`, which also says the classes and the size of the images.
    """
