"""Methods that other libraries compute, made from tables; the libraries load on first use."""

from __future__ import annotations

from xcam.core import Method
from xcam.methods.bridges.cam_table import CAMS
from xcam.methods.bridges.captum_gradients import GRADIENTS
from xcam.methods.bridges.captum_perturbations import PERTURBATIONS
from xcam.methods.bridges.rows import build_method

__all__ = ["BRIDGES", "ROWS"]

ROWS = (*PERTURBATIONS, *GRADIENTS, *CAMS)
"""The table: a row a method."""
BRIDGES: list[type[Method]] = [build_method(row, __name__) for row in ROWS]
"""The methods that are made from it, each also under the name of its class in this module."""

globals().update({method.__name__: method for method in BRIDGES})
