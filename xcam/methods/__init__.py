"""The methods that xcam brings, one file each; a plugin like any other."""

from __future__ import annotations

from xcam.core import Method
from xcam.hookspecs import hookimpl
from xcam.methods.gradcam import GradCAM

__all__ = ["METHODS", "GradCAM", "xcam_methods"]

METHODS: list[type[Method]] = [
    GradCAM,
]


@hookimpl
def xcam_methods() -> list[type[Method]]:
    """Xcam's own methods."""
    return METHODS
