"""Options that several commands share, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xcam.cli.catalog import complete_names

__all__ = [
    "BatchSize",
    "Categories",
    "Device",
    "Mean",
    "Methods",
    "MethodsOrMethod",
    "Metrics",
    "Model",
    "Precision",
    "Resize",
    "Settings",
    "Std",
    "Weights",
    "complete_any",
    "complete_methods",
    "complete_metrics",
    "complete_models",
    "complete_recipes",
]


def complete_any(incomplete: str) -> list[str]:
    """Return the methods and metrics that a word may become."""
    return [*complete_methods(incomplete), *complete_metrics(incomplete)]


def complete_methods(incomplete: str) -> list[str]:
    """Return the methods that a word may become."""
    return complete_names("methods", incomplete)


def complete_metrics(incomplete: str) -> list[str]:
    """Return the metrics that a word may become."""
    return complete_names("metrics", incomplete)


def complete_models(incomplete: str) -> list[str]:
    """Return the nets that a word may become, among those that xcam and plugins bring."""
    return complete_names("models", incomplete)


def complete_recipes(incomplete: str) -> list[str]:
    """Return the recipes that a word may become."""
    return complete_names("recipes", incomplete)


Model = Annotated[
    str,
    typer.Option(
        help="The net: provider:name, such as timm:resnet18, or a .safetensors file that xcam "
        "wrote; `xcam models` lists xcam's own.",
        autocompletion=complete_models,
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        help="Weights of the net: DEFAULT for its provider's, a .pth or .safetensors file, or none."
    ),
]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="An argument of the net's constructor, such as num_classes=7; may be repeated.",
    ),
]
Categories = Annotated[
    Path | None,
    typer.Option(
        help="File of the classes' names, a line each in the order of the net's outputs, or a "
        "JSON list."
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        help="Mean of each channel that the net's images are normalized by, of pixels in [0, 1], "
        "such as 0.485,0.456,0.406.",
        show_default="the net's",
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        help="Standard deviation of each channel, likewise; give it with --mean.",
        show_default="the net's",
    ),
]
Methods = Annotated[
    str | None,
    typer.Option(
        help='Methods with their settings, such as "gradcam(layer=layer3),rise"; `xcam methods` '
        "lists them.",
        show_default="the net's own, or gradcam",
        autocompletion=complete_methods,
    ),
]
MethodsOrMethod = Annotated[
    str | None,
    typer.Option(
        "--methods",
        "--method",
        help='Methods with their settings, such as "gradcam(layer=layer3),rise"; `xcam methods` '
        "lists them.",
        show_default="the net's own, or gradcam",
        autocompletion=complete_methods,
    ),
]
Metrics = Annotated[
    str,
    typer.Option(
        help='Metrics with their settings, such as "insertion,road(seed=1)"; `xcam metrics` lists '
        "them.",
        autocompletion=complete_metrics,
    ),
]
Resize = Annotated[
    str | None,
    typer.Option(
        help="Resize the shorter side to this, bilinear, before cropping; 224x224 resizes to that "
        "square."
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        help="How many images go through the net at a time; fewer need less memory.",
        show_default="chosen by xcam",
    ),
]
Precision = Annotated[
    str,
    typer.Option(help="Arithmetic of the net: full, or bf16 or fp16, which may be faster."),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Where to compute, such as cpu or cuda.", show_default="the launcher's, or cpu"
    ),
]
