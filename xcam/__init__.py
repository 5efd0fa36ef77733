"""Explain image classifiers: one call for every method, trainable or post-hoc."""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from xcam.forks import importing

if TYPE_CHECKING:
    from xcam import checkpoints, data, errors, methods, metrics, models, recipes, testing
    from xcam._evaluate import evaluate
    from xcam._explain.verb import explain
    from xcam._fit import accuracy, fit
    from xcam._roar import roar
    from xcam.checkpoints import load, save
    from xcam.core import (
        Explanation,
        Method,
        MethodSpec,
        Metric,
        MetricSpec,
        Note,
        Target,
        TrainableMethod,
    )
    from xcam.errors import XcamError, XcamWarning
    from xcam.explanations.stability import stability_iou
    from xcam.hookspecs import hookimpl
    from xcam.imaging import read_image
    from xcam.metrics.localization.cues import cue_localization
    from xcam.registry import Registry, get_method, get_metric, list_methods, list_metrics
    from xcam.results import Results, RetrainingResults
    from xcam.testing import check_method, check_metric

# Where each public name lives; loaded at first use, so `import xcam` imports no torch.
_HOMES = {
    "Explanation": "xcam.core",
    "Method": "xcam.core",
    "MethodSpec": "xcam.core",
    "Metric": "xcam.core",
    "MetricSpec": "xcam.core",
    "Note": "xcam.core",
    "Registry": "xcam.registry",
    "Results": "xcam.results",
    "RetrainingResults": "xcam.results",
    "Target": "xcam.core",
    "TrainableMethod": "xcam.core",
    "XcamError": "xcam.errors",
    "XcamWarning": "xcam.errors",
    "accuracy": "xcam._fit",
    "check_method": "xcam.testing",
    "check_metric": "xcam.testing",
    "cue_localization": "xcam.metrics.localization.cues",
    "evaluate": "xcam._evaluate",
    "explain": "xcam._explain.verb",
    "fit": "xcam._fit",
    "get_method": "xcam.registry",
    "get_metric": "xcam.registry",
    "hookimpl": "xcam.hookspecs",
    "list_methods": "xcam.registry",
    "list_metrics": "xcam.registry",
    "load": "xcam.checkpoints",
    "read_image": "xcam.imaging",
    "roar": "xcam._roar",
    "save": "xcam.checkpoints",
    "stability_iou": "xcam.explanations.stability",
}
_MODULES = (
    "checkpoints",
    "data",
    "errors",
    "methods",
    "metrics",
    "models",
    "recipes",
    "testing",
)

__all__ = [
    "Explanation",
    "Method",
    "MethodSpec",
    "Metric",
    "MetricSpec",
    "Note",
    "Registry",
    "Results",
    "RetrainingResults",
    "Target",
    "TrainableMethod",
    "XcamError",
    "XcamWarning",
    "accuracy",
    "check_method",
    "check_metric",
    "checkpoints",
    "cue_localization",
    "data",
    "errors",
    "evaluate",
    "explain",
    "fit",
    "get_method",
    "get_metric",
    "hookimpl",
    "list_methods",
    "list_metrics",
    "load",
    "methods",
    "metrics",
    "models",
    "read_image",
    "recipes",
    "roar",
    "save",
    "stability_iou",
    "testing",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    with importing():
        if name in _MODULES:
            return importlib.import_module(f"xcam.{name}")
        if name in _HOMES:
            return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "__version__":
        return _version("xcam")
    raise AttributeError(f"module 'xcam' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
