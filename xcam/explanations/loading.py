"""`load_explanation`: what `Explanation.save` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from xcam.core import Explanation, Method, Note, SavedMethod
from xcam.core.explanation_file import FORMAT, KEY
from xcam.errors import FileFormatError, UnknownNameError, warn
from xcam.registry import make_method
from xcam.runs import files

__all__ = ["load_explanation"]

_DIMENSIONS = {"raw": (3, 4), "target": (1,), "logits": (2,), "contrast": (1,)}


def load_explanation(path: str | Path) -> Explanation:
    """Read what `Explanation.save` wrote, onto the CPU, tensors bit for bit.

    A method that is not installed here, or refuses the parameters, becomes a `SavedMethod` that
    keeps its name and parameters; the explanation's `notes` and an `warn` say so. Maps that
    were made elsewhere keep the name that `Explanation.of` gave them, without a warning.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is damaged, truncated, of a newer format, or not by xcam.
    """
    path = Path(path)
    header, tensors = files.read_tensors(path, KEY, FORMAT)
    try:
        name = str(header["method"])
        notes = tuple(Note(image, text) for image, text in header["notes"])
        height, width = map(int, header["size"])
        categories = tuple(map(str, header.get("categories", ())))  # not in the first files
        is_foreign = bool(header.get("is_foreign", False))
        values = {key: files.decode(value, tensors) for key, value in header["parameters"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise files.describe_damaged_header(path, error) from error
    problem = _find_problem(tensors)
    if problem:
        raise FileFormatError(f"{str(path)!r} holds no explanation: {problem}")
    method, reason = _make_method(name, values, is_foreign)
    if reason:
        warn(reason)
        notes = (*notes, Note(None, reason))
    return Explanation(
        raw=tensors["raw"],
        size=(height, width),
        target=tensors.get("target"),
        logits=tensors.get("logits"),
        method=method,
        run_notes=notes,
        contrast=tensors.get("contrast"),
        categories=categories,
    )


def _find_problem(tensors: Mapping[str, Tensor]) -> str | None:
    """Return why the tensors cannot be an explanation's; None if they can."""
    if "raw" not in tensors:
        return "there is no tensor 'raw'"
    raw = tuple(tensors["raw"].shape)
    for name, ndims in _DIMENSIONS.items():
        shape = tuple(tensors[name].shape) if name in tensors else None
        if shape is not None and (len(shape) not in ndims or shape[0] != raw[0]):
            return f"{name!r} has shape {shape}" + (f" beside raw maps of {raw}" * (name != "raw"))
    return None


def _make_method(
    name: str, values: dict[str, Any], is_foreign: bool
) -> tuple[Method | SavedMethod, str]:
    """Return the method, and an empty reason; or what was saved of it, and why it is no more."""
    if is_foreign:
        return SavedMethod(name, tuple(values.items()), is_foreign), ""
    try:
        return make_method(name, values), ""
    except UnknownNameError:
        reason = f"the method {name!r} is not installed here"
    except (TypeError, ValueError) as error:
        reason = f"the method {name!r} that is installed here refuses its parameters ({error})"
    return SavedMethod(name, tuple(values.items())), f"{reason}; its parameters are kept as saved"
