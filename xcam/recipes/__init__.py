"""The settings of published trainings as small TOML files, and the training by one."""

from __future__ import annotations

from xcam.recipes.reading import names, read
from xcam.recipes.training import accuracy, fit, roar

__all__ = ["accuracy", "fit", "names", "read", "roar"]
