"""Three methods and two metrics as a plugin of xcam."""

from __future__ import annotations

import xcam
from xcam_example.cell_correlation import CellCorrelation
from xcam_example.elementwise_gradcam import ElementwiseGradCAM
from xcam_example.gate import Gate
from xcam_example.half_kept import HalfKept
from xcam_example.occlusion import Occlusion

__all__ = [
    "CellCorrelation",
    "ElementwiseGradCAM",
    "Gate",
    "HalfKept",
    "Occlusion",
    "xcam_methods",
    "xcam_metrics",
]


@xcam.hookimpl
def xcam_methods() -> list[type[xcam.Method]]:
    """Return the methods that this package brings."""
    return [ElementwiseGradCAM, Gate, Occlusion]


@xcam.hookimpl
def xcam_metrics() -> list[type[xcam.Metric]]:
    """Return the metrics that this package brings."""
    return [CellCorrelation, HalfKept]
