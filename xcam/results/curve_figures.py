"""Curves as pictures, with their intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xcam.core.figures import INK, make_figure, write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CurveLabels", "draw_curves", "draw_image_curves"]

_GRAY = "#888888"
_DASHES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))  # of controls, one after the other
_PLAIN = ("-", (0, (6, 1)), (0, (3, 1, 1, 1)))  # of methods, once the colors are used up


@dataclass(frozen=True)
class CurveLabels:
    """The words of a figure of curves.

    Attributes:
        title: Above the panels.
        x: What the abscissa is.
        y: What the ordinate is.
        methods: The titles of methods by their labels; others go by their labels.
        controls: The labels of the methods that are controls.
    """

    title: str
    x: str
    y: str
    methods: Mapping[str, str] = field(default_factory=dict)
    controls: Collection[str] = ()

    def name(self, method: str) -> str:
        """Return the title of a method."""
        return self.methods.get(method, method)


def draw_curves(
    points: pd.DataFrame, labels: CurveLabels, path: str | Path | None = None
) -> Figure:
    """Draw curves with their intervals as bands, a model a panel, controls dashed in gray.

    The legend, beside the panels, gives the area under each curve by the trapezoidal rule, over
    the width of its abscissa; of several models one after the other, in the panels' order, with a
    dash where a method has no curve.

    Args:
        points: Columns `model`, `method`, `x`, `y`, `low` and `high`; see `Results.curves`.
        labels: The words.
        path: Where to write the picture, in the format of its suffix.

    Raises:
        ValueError: matplotlib does not write the format.
    """
    models, methods = [*points["model"].unique()], [*points["method"].unique()]
    styles = _choose_styles(methods, labels.controls)
    figure, panels = _make_panels(labels, 1, len(models))
    for axes, model in zip(panels[0], models, strict=True):
        for method, style in styles.items():
            curve = points[(points["model"] == model) & (points["method"] == method)]
            axes.plot(curve["x"], curve["y"], label=labels.name(method), linewidth=1.3, **style)
            axes.fill_between(
                curve["x"],
                curve["low"],
                curve["high"],
                color=style["color"],
                alpha=0.15,
                linewidth=0,
            )
        if len(models) > 1:
            axes.set_title(model, fontsize=9, color=INK)
    lines = [panels[0][-1].plot([], [], linewidth=1.3, **style)[0] for style in styles.values()]
    names = [
        f"{labels.name(method)}  {_describe_areas(points, models, method)}" for method in styles
    ]
    legend = figure.legend(
        lines, names, loc="outside right upper", fontsize=8, frameon=False, title="AUC"
    )
    legend.get_title().set_fontsize(8)
    return write_figure(figure, path)


def draw_image_curves(
    points: pd.DataFrame,
    thin: pd.DataFrame,
    labels: CurveLabels,
    path: str | Path | None = None,
) -> Figure:
    """Draw mean curves, bold, over those of single images: a row a model, a column a method.

    Args:
        points: Columns `model`, `method`, `x` and `y`; see `Results.curves`.
        thin: Of single images, with a column `image`, too.
        labels: The words.
        path: Where to write the picture, in the format of its suffix.

    Raises:
        ValueError: matplotlib does not write the format.
    """
    models, methods = points["model"].unique(), points["method"].unique()
    figure, panels = _make_panels(labels, len(models), len(methods))
    for line, model in zip(panels, models, strict=True):
        for axes, method in zip(line, methods, strict=True):
            mean, single = (
                table[(table["model"] == model) & (table["method"] == method)]
                for table in (points, thin)
            )
            for _, curve in single.groupby("image"):
                axes.plot(curve["x"], curve["y"], color="C0", linewidth=0.4, alpha=0.3)
            axes.plot(mean["x"], mean["y"], color="C3", linewidth=2)
            name = labels.name(method)
            axes.set_title(f"{name} ({model})" if len(models) > 1 else name, fontsize=9)
    return write_figure(figure, path)


def _make_panels(labels: CurveLabels, rows: int, columns: int) -> tuple[Figure, Any]:
    """Make a figure and its (rows, columns) axes, which share the ordinate."""
    figure = make_figure((5 * columns, 3.5 * rows), layout="constrained")
    figure.suptitle(labels.title, fontsize=10, color=INK)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in panels[-1]:
        axes.set_xlabel(labels.x, fontsize=9, color=INK)
    for line in panels:
        line[0].set_ylabel(labels.y, fontsize=9, color=INK)
    for axes in panels.flat:
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _choose_styles(methods: Sequence[str], controls: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the color and dashes of each method's line, those of controls last."""
    plain = [method for method in methods if method not in controls]
    gray = [method for method in methods if method in controls]
    return {
        method: {"color": f"C{number % 10}", "linestyle": _PLAIN[number // 10 % len(_PLAIN)]}
        for number, method in enumerate(plain)
    } | {
        method: {"color": _GRAY, "linestyle": _DASHES[number % len(_DASHES)]}
        for number, method in enumerate(gray)
    }


def _describe_areas(points: pd.DataFrame, models: Sequence[str], method: str) -> str:
    """Return the area under a method's curve of each model, of unit width."""
    areas = []
    for model in models:
        curve = points[(points["model"] == model) & (points["method"] == method)]
        x, y = curve["x"].to_numpy(), curve["y"].to_numpy()
        if len(x) < 2:
            areas.append("–")
            continue
        area = ((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0])
        areas.append(f"{area:.3f}")
    return ", ".join(areas)
