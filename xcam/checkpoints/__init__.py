"""Nets as files: safetensors with a JSON header from which the whole net is built again."""

from xcam.checkpoints.loading import load
from xcam.checkpoints.saving import save

__all__ = ["load", "save"]
