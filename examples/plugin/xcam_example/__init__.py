"""Occlusion sensitivity, and a metric that hides cells as it does, as a plugin of xcam."""

from __future__ import annotations

import xcam
from xcam_example.cell_correlation import CellCorrelation
from xcam_example.occlusion import Occlusion

__all__ = ["CellCorrelation", "Occlusion", "xcam_methods", "xcam_metrics"]


@xcam.hookimpl
def xcam_methods() -> list[type[xcam.Method]]:
    """The methods that this package brings."""
    return [Occlusion]


@xcam.hookimpl
def xcam_metrics() -> list[type[xcam.Metric]]:
    """The metrics that this package brings."""
    return [CellCorrelation]
