"""Occlusion sensitivity, as a plugin of xcam."""

from __future__ import annotations

import xcam
from xcam_example.occlusion import Occlusion

__all__ = ["Occlusion", "xcam_methods"]


@xcam.hookimpl
def xcam_methods() -> list[type[xcam.Method]]:
    """The methods that this package brings."""
    return [Occlusion]
