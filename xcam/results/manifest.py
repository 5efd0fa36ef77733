"""What the manifest of an evaluation says of its methods, its metrics and its images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xcam.core import Metric
from xcam.errors import FileFormatError
from xcam.registry import get_metric, installed

__all__ = ["controls", "images", "metrics"]


def metrics(folder: Path) -> dict[str, Metric]:
    """The metrics by label, made again from their names and settings.

    Raises:
        FileFormatError: The manifest is missing or damaged.
        UnknownNameError: A metric is not installed.
        ValueError: A setting that no file can hold, such as a tensor.
    """
    return {label: _metric(label, entry) for label, entry in _entries(folder, "metrics").items()}


def controls(folder: Path) -> set[str]:
    """The labels of the methods that are controls; one that is not installed counts as none.

    Raises:
        FileFormatError: The manifest is missing or damaged.
    """
    known = installed().methods
    names = {label: entry["name"] for label, entry in _entries(folder, "methods").items()}
    return {
        label
        for label, name in names.items()
        if name in known and known[name].spec.family == "control"
    }


def images(folder: Path) -> int:
    """How many images the evaluation is of, whether or not it is finished.

    Raises:
        FileFormatError: The manifest is missing or damaged.
    """
    try:
        return int(_entries(folder, "images")["count"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"the manifest in {str(folder)!r} counts no images") from error


def _metric(label: str, entry: Mapping[str, Any]) -> Metric:
    kind = get_metric(entry["name"])
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in entry["parameters"].items()
    }
    try:
        found = kind(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot make {entry['repr']} again: {error}; give metrics=") from error
    if repr(found) != entry["repr"]:
        raise ValueError(f"{label!r} was {entry['repr']} and would be {found!r}; give metrics=")
    return found


def _entries(folder: Path, part: str) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        entries = json.loads(path.read_bytes())[part]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{str(path)!r} is no manifest to read: {error!r}") from error
    if not isinstance(entries, dict):
        raise FileFormatError(f"{str(path)!r} has no {part} by label")
    return entries
