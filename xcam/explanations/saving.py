"""Explanations as files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xcam.core import Explanation, Method, SavedMethod
from xcam.errors import FileFormatError, UnknownNameError, XcamWarning
from xcam.registry import get_method
from xcam.runs import files

__all__ = ["load_explanation", "save_explanation"]

FORMAT = 1
_KEY = "xcam.explanation"


def save_explanation(explanation: Explanation, path: str | Path) -> None:
    """Writes an explanation as a safetensors file.

    Tensors: `maps`, `raw`, `target` and `logits` where there are any, and the method's parameters
    that are tensors. The header holds the format, the method with its parameters, the warnings and
    the versions of xcam and torch.

    Args:
        explanation: What to write; its tensors may be anywhere, in any memory layout.
        path: The file; one that exists is replaced.

    Raises:
        TypeError: A parameter of the method that no file can hold, such as a module.
        OSError: The folder is missing or cannot be written to.
    """
    method = explanation.method
    tensors = {
        name: tensor
        for name in ("maps", "raw", "target", "logits")
        if (tensor := getattr(explanation, name)) is not None
    }
    header = {
        "format": FORMAT,
        "method": method.name if isinstance(method, SavedMethod) else method.spec.name,
        "parameters": {
            name: files.encode(value, f"method.{name}", tensors)
            for name, value in method.parameters().items()
        },
        "warnings": explanation.warnings,
        "versions": {"xcam": version("xcam"), "torch": str(torch.__version__)},
    }
    with files.writing(path) as partial:
        owned = {name: _own(tensor) for name, tensor in tensors.items()}
        files.write_tensors(partial, owned, _KEY, header)


def load_explanation(path: str | Path) -> Explanation:
    """Reads what `save_explanation` wrote, onto the CPU, bit for bit.

    A method that is not installed here, or refuses the parameters, becomes a `SavedMethod` that
    keeps the recipe; the explanation's `warnings` and an `XcamWarning` say so.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is damaged, truncated, of a newer format, or not by xcam.
    """
    path = Path(path)
    header, tensors = files.read_tensors(path, _KEY, FORMAT)
    try:
        name, notes = str(header["method"]), tuple(map(str, header["warnings"]))
        values = {key: files.decode(value, tensors) for key, value in header["parameters"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{str(path)!r} has an incomplete header: {error!r}") from error
    fault = _fault(tensors)
    if fault:
        raise FileFormatError(f"{str(path)!r} holds no explanation: {fault}")
    method, problem = _method(name, values)
    if problem:
        warnings.warn(problem, XcamWarning, stacklevel=2)
        notes = (*notes, problem)
    return Explanation(
        maps=tensors["maps"],
        raw=tensors["raw"],
        target=tensors.get("target"),
        logits=tensors.get("logits"),
        method=method,
        warnings=notes,
    )


def _own(tensor: Tensor) -> Tensor:
    """A copy in memory of its own, row after row: all that safetensors can write."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


def _fault(tensors: Mapping[str, Tensor]) -> str | None:
    """Why the tensors cannot be an explanation's, if they cannot."""
    for name, ndims in {"maps": (3,), "raw": (3, 4), "target": (1,), "logits": (2,)}.items():
        if name not in tensors:
            if name in ("maps", "raw"):
                return f"there is no tensor {name!r}"
            continue
        shape = tuple(tensors[name].shape)
        if len(shape) not in ndims or shape[0] != len(tensors["maps"]):
            return f"{name!r} has shape {shape} beside maps of {tuple(tensors['maps'].shape)}"
    return None


def _method(name: str, values: dict[str, Any]) -> tuple[Method | SavedMethod, str]:
    """The method; or what was saved of it, and a sentence on why there is no more."""
    try:
        return get_method(name)(**values), ""
    except UnknownNameError:
        problem = f"the method {name!r} is not installed here"
    except (TypeError, ValueError) as error:
        problem = f"the method {name!r} that is installed here refuses its parameters ({error})"
    return SavedMethod(name, tuple(values.items())), f"{problem}; its recipe is kept as saved"
