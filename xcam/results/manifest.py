"""Methods, metrics and images of an evaluation, read from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xcam.core import Metric
from xcam.errors import FileFormatError
from xcam.registry import get_metric, installed
from xcam.runs.manifest import read_manifest

__all__ = ["count_images", "load_controls", "load_metrics", "load_titles", "make_metrics"]


def load_metrics(folder: Path, given: Mapping[str, Metric] | None = None) -> dict[str, Metric]:
    """Return the metrics by label, made again from their names and settings.

    Args:
        folder: Of the evaluation.
        given: Metrics that need not be made.

    Raises:
        FileFormatError: The manifest is missing or damaged.
        UnknownNameError: A metric is not installed.
        ValueError: A setting that no file can hold, such as a tensor.
    """
    return make_metrics(_read_part(folder, "metrics"), given or {})


def make_metrics(
    entries: Mapping[str, Mapping[str, Any]], given: Mapping[str, Metric]
) -> dict[str, Metric]:
    """Return the metrics of a manifest's entries by label; see `load_metrics`."""
    return {
        label: given[label] if label in given else _make_metric(label, entry)
        for label, entry in entries.items()
    }


def load_controls(folder: Path) -> set[str]:
    """Return the labels of the methods that are controls; of those that are installed here.

    Raises:
        FileFormatError: The manifest is missing or damaged.
    """
    known = installed().methods
    names = {label: entry["name"] for label, entry in _read_part(folder, "methods").items()}
    return {
        label
        for label, name in names.items()
        if name in known and known[name].spec.family == "control"
    }


def load_titles(folder: Path) -> dict[str, str]:
    """Return the titles of methods by label, where the label is but the name of one.

    Raises:
        FileFormatError: The manifest is missing or damaged.
    """
    known = installed().methods
    return {
        label: known[label].spec.title
        for label, entry in _read_part(folder, "methods").items()
        if label in known and entry["name"] == label and known[label].spec.title
    }


def count_images(folder: Path) -> int:
    """Return how many images the evaluation is of, whether or not it is finished.

    Raises:
        FileFormatError: The manifest is missing or damaged.
    """
    try:
        return int(_read_part(folder, "images")["count"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"the manifest in {str(folder)!r} counts no images") from error


def _make_metric(label: str, entry: Mapping[str, Any]) -> Metric:
    kind = get_metric(entry["name"])
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in entry["parameters"].items()
    }
    try:
        found = kind(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot make {entry['repr']} again: {error}; pass metrics=") from error
    if repr(found) != entry["repr"]:
        raise ValueError(f"{label!r} was {entry['repr']} and would be {found!r}; pass metrics=")
    return found


def _read_part(folder: Path, part: str) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        entries = read_manifest(path, "evaluation").get(part)
    except OSError as error:
        raise FileFormatError(
            f"{str(path)!r} cannot be read ({error.strerror}); put a copy of it back, or use "
            "another folder for the evaluation"
        ) from error
    if not isinstance(entries, dict):
        raise FileFormatError(f"{str(path)!r} has no {part} by label")
    return entries
