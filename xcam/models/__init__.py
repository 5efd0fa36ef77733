"""Nets by name, to explain and to train; normalisation inside; which layer to explain."""

from __future__ import annotations

from xcam.models._load import load
from xcam.models.layers import default_layer
from xcam.models.layout import Layout, spatial
from xcam.models.normalized import Normalized

__all__ = ["Layout", "Normalized", "default_layer", "load", "spatial"]
