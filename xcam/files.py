"""Explanations as files: safetensors with a JSON header, written whole or not at all."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from xcam.core import Explanation, Method, SavedMethod
from xcam.errors import FileFormatError, UnknownNameError, XcamWarning
from xcam.registry import get_method

__all__ = ["load_explanation", "save_explanation", "write"]

FORMAT = 1
_HEADER = "xcam.explanation"
_FIELD = "method."  # before the names of tensors that are a method's parameters


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
        "maps": explanation.maps,
        "raw": explanation.raw,
        "target": explanation.target,
        "logits": explanation.logits,
    }
    header = {
        "format": FORMAT,
        "method": method.name if isinstance(method, SavedMethod) else method.spec.name,
        "parameters": {
            name: _encode(value, _FIELD + name, tensors)
            for name, value in method.parameters().items()
        },
        "warnings": explanation.warnings,
        "versions": {"xcam": version("xcam"), "torch": str(torch.__version__)},
    }
    held = {name: _own(tensor) for name, tensor in tensors.items() if tensor is not None}
    write(path, save(held, {_HEADER: json.dumps(header)}))


def load_explanation(path: str | Path) -> Explanation:
    """Reads what `save_explanation` wrote, onto the CPU, bit for bit.

    A method that is not installed here, or refuses the parameters, becomes a `SavedMethod` that
    keeps the recipe; the explanation's `warnings` and an `XcamWarning` say so.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is damaged, truncated, of a newer format, or not by xcam.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {str(path)!r}")
    header, tensors = _read(path)
    try:
        name, notes = str(header["method"]), tuple(map(str, header["warnings"]))
        values = {key: _decode(value, tensors) for key, value in header["parameters"].items()}
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


def write(path: str | Path, content: bytes) -> None:
    """Writes a file whole or not at all: into a temporary file beside it, then renamed.

    Its content is on the disk before its name is: a machine that stops leaves no empty file.

    Raises:
        OSError: The folder is missing or cannot be written to; a sentence that names the file.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"cannot write {str(path)!r}: {reason.lower()}") from error


def _encode(value: object, name: str, tensors: dict[str, Tensor | None]) -> object:
    """A parameter as JSON; a tensor goes into `tensors` and leaves its name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        items = enumerate(value)
        return {kind: [_encode(item, f"{name}.{index}", tensors) for index, item in items]}
    raise TypeError(
        f"{name} is a {type(value).__name__}, which no file can hold; explain with a name, number "
        "or tensor there, or save `explanation.maps` yourself"
    )


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    items = [_decode(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def _own(tensor: Tensor) -> Tensor:
    """A copy in memory of its own, row after row: all that safetensors can write."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise FileFormatError(
            f"{str(path)!r} is damaged, truncated, or no safetensors file: {error}"
        ) from error
    if _HEADER not in metadata:
        raise FileFormatError(f"{str(path)!r} is a safetensors file, but no explanation by xcam")
    try:
        header = json.loads(metadata[_HEADER])
        written = int(header["format"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{str(path)!r} has a damaged header: {error!r}") from error
    if written > FORMAT:
        raise FileFormatError(
            f"{str(path)!r} has format {written}, this xcam reads up to {FORMAT}; upgrade xcam"
        )
    return header, tensors


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
