"""Three methods, two metrics and a net as a plugin of xcam."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

import xcam
from xcam_example.cell_correlation import CellCorrelation
from xcam_example.elementwise_gradcam import ElementwiseGradCAM
from xcam_example.gate import Gate
from xcam_example.half_kept import HalfKept
from xcam_example.hidden_cells import HiddenCells
from xcam_example.tiny_cnn import TinyCNN

__all__ = [
    "CellCorrelation",
    "ElementwiseGradCAM",
    "Gate",
    "HalfKept",
    "HiddenCells",
    "TinyCNN",
    "xcam_methods",
    "xcam_metrics",
    "xcam_models",
]


@xcam.hookimpl
def xcam_methods() -> list[type[xcam.Method]]:
    """Return the methods that this package brings."""
    return [ElementwiseGradCAM, Gate, HiddenCells]


@xcam.hookimpl
def xcam_metrics() -> list[type[xcam.Metric]]:
    """Return the metrics that this package brings."""
    return [CellCorrelation, HalfKept]


@xcam.hookimpl
def xcam_models() -> dict[str, Callable[..., nn.Module]]:
    """Return the nets that this package brings."""
    return {"example:tiny_cnn": TinyCNN}
