"""What another library may leave behind in a model, and putting it back."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from xcam.engine import random_states, untouched
from xcam.engine.structure import walk

__all__ = ["repaired", "seeded"]


@contextmanager
def repaired(model: nn.Module, library: str) -> Iterator[None]:
    """Put back whatever a library changes of a model inside a block, also after an error.

    That is what `untouched` restores (modes, gradients, buffers, random states), and of each module
    its attributes, hooks, parameters and submodules. The library's own warnings are hidden: they
    tell of steps that are undone here.

    Args:
        model: The classifier.
        library: The name of the package.
    """
    with untouched(model), warnings.catch_warnings(), _restored_attributes(model):
        warnings.filterwarnings("ignore", module=rf"{library}\b")
        # Raised on captum's behalf at our line.
        warnings.filterwarnings("ignore", message=r"\s*Setting forward, backward hooks")
        yield


@contextmanager
def _restored_attributes(model: nn.Module) -> Iterator[None]:
    """Restore each module's attributes, and the contents of those that are dicts."""
    before = [(vars(module), dict(vars(module)), _copy_dicts(module)) for module in walk(model)]
    try:
        yield
    finally:
        for present, attributes, dicts in before:
            for dictionary, items in dicts:
                _put_back(dictionary, items)
            _put_back(present, attributes)


def _copy_dicts(module: nn.Module) -> list[tuple[dict[Any, Any], dict[Any, Any]]]:
    """Return the dicts that a module holds, each with a copy."""
    return [(each, dict(each)) for each in vars(module).values() if isinstance(each, dict)]


def _put_back(dictionary: dict[Any, Any], items: dict[Any, Any]) -> None:
    """Give a dict the items that it had, if any of them is another object by now."""
    same = list(dictionary) == list(items)
    if not (same and all(dictionary[key] is value for key, value in items.items())):
        dictionary.clear()
        dictionary.update(items)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators that a library draws from inside a block, and restore them."""
    with random_states():
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        np.random.seed(seed % 2**32)
        yield
