"""Nets by name, with their normalization inside, and the default layer to explain."""

from __future__ import annotations

from xcam.engine.layers import default_layer
from xcam.engine.layout import Layout, read_map
from xcam.models.loading import list_models, load
from xcam.models.nets import xcam_models
from xcam.models.normalized import Normalized

__all__ = [
    "Layout",
    "Normalized",
    "default_layer",
    "list_models",
    "load",
    "read_map",
    "xcam_models",
]
