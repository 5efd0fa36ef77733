"""How an explanation is written; `xcam.explanations.loading` reads it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xcam.core.method import Method
from xcam.runs import files

if TYPE_CHECKING:
    from xcam.core.explanation import Explanation

__all__ = ["FORMAT", "KEY", "write_explanation"]

FORMAT = 3
KEY = "xcam.explanation"


def write_explanation(explanation: Explanation, path: str | Path) -> None:
    """Write an explanation as a safetensors file; see `Explanation.save`.

    Tensors: `raw`, `target`, `logits` and `contrast` where there are any, and the method's
    parameters that are tensors. The header holds the format, the images' size, the method with its
    parameters, whether the maps were made elsewhere, the notes of the run, the names of the
    classes and the versions of xcam and torch.
    """
    tensors = explanation.tensors()
    header = {
        "format": FORMAT,
        "size": list(explanation.size),
        "method": explanation.method.spec.name,
        "is_foreign": getattr(explanation.method, "is_foreign", False),
        "parameters": {
            name: files.encode(_name_method(value), f"method.{name}", tensors)
            for name, value in explanation.method.parameters().items()
        },
        "notes": explanation.run_notes,
        "categories": explanation.categories,
        "versions": {"xcam": version("xcam"), "torch": str(torch.__version__)},
    }
    with files.writing(path) as partial:
        owned = {name: _to_row_major(tensor) for name, tensor in tensors.items()}
        files.write_tensors(partial, owned, KEY, header)


def _name_method(value: object) -> object:
    """Return a method, such as another's base, as its name and settings; else the value itself."""
    if not isinstance(value, Method):
        return value
    settings = {name: _name_method(each) for name, each in value.parameters().items()}
    return value.spec.name, settings


def _to_row_major(tensor: Tensor) -> Tensor:
    """Copy a tensor into memory of its own, row after row: all that safetensors can write."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
