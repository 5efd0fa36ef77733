"""Explanations and results as pictures: matplotlib figures, without its global state."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from torch import Tensor, nn

from xcam import imaging
from xcam.core import Explanation, SavedMethod
from xcam.runs import files

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["captions", "comparison", "curves", "grid", "plot"]

_DPI = 120
_INK = "#222222"
_LETTERS_AN_INCH = 12.5
_LINE = 0.15  # inches that a line of text beneath a picture takes
_SCALE = 0.7  # inches that a scale of colours takes


def plot(
    explanation: Explanation,
    images: Tensor,
    path: str | Path | None = None,
    categories: Sequence[str] = (),
) -> Figure:
    """Draws each image beside its overlay, with a scale of the colours.

    Args:
        explanation: Of B images.
        images: (B, C, H, W), the images that were explained; C of 1 or 3.
        path: Where to write the picture, of the kind that its suffix says (.png, .pdf, .svg …).
        categories: Names of the model's classes; without them classes go by their numbers.

    Raises:
        ValueError: matplotlib writes no such kind of file.
        OSError: The folder is missing or cannot be written to.
    """
    method = explanation.method
    title = method.name if isinstance(method, SavedMethod) else method.spec.title
    figure = grid(
        images,
        {title: explanation.overlay(images)},
        captions(explanation, categories),
        cell=2.6,
    )
    _add_scale(figure)
    return _written(figure, path)


def grid(
    images: Tensor,
    columns: Mapping[str, Tensor],
    rows: Sequence[str] = (),
    path: str | Path | None = None,
    *,
    beneath: Mapping[str, Sequence[str]] = MappingProxyType({}),
    cell: float = 1.3,
    dpi: int = _DPI,
) -> Figure:
    """Draws a table of pictures: an image a row, the image itself and then a method a column.

    Args:
        images: (B, C, H, W), C of 1 or 3.
        columns: (B, 3, H, W) overlays in [0, 1] by title.
        rows: B labels, such as `captions` gives; none by default.
        path: Where to write the picture, of the kind that its suffix says (.png, .pdf, .svg …).
        beneath: B lines of text by title, one below each overlay; none by default.
        cell: Width of a picture in inches.
        dpi: Pixels an inch.

    Raises:
        ValueError: Not B overlays, labels or lines of text; or matplotlib writes no such kind of
            file.
        OSError: The folder is missing or cannot be written to.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    count = len(images)
    for title, overlays in columns.items():
        if len(overlays) != count:
            raise ValueError(f"{title!r} has {len(overlays)} overlays for {count} images")
    for labels in filter(None, (rows, *beneath.values())):
        if len(labels) != count:
            raise ValueError(f"{len(labels)} labels for {count} images")
    pictures = {"image": imaging.stretch(images.detach().float()), **columns}
    letters = max((len(line) for row in rows for line in row.split("\n")), default=0)
    margin = letters / _LETTERS_AN_INCH  # beside the pictures, for the labels
    height = cell * images.shape[2] / images.shape[3] + (_LINE if beneath else 0)
    size = (margin + cell * len(pictures), 0.4 + height * count)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0, compress=True)
    figure = Figure(figsize=size, dpi=dpi, layout=layout, facecolor="white")
    axes = figure.subplots(count, len(pictures), squeeze=False)
    for column, (title, batch) in enumerate(pictures.items()):
        axes[0, column].set_title(textwrap.fill(title, int(cell * 12)), fontsize=9, color=_INK)
        for row in range(count):
            _show(axes[row, column], batch[row])
            if beneath.get(title):
                axes[row, column].set_xlabel(beneath[title][row], fontsize=7, color=_INK)
    for row, label in enumerate(rows):
        axes[row, 0].set_ylabel(
            label, rotation=0, ha="right", va="center", fontsize=9, color=_INK, labelpad=6
        )
    return _written(figure, path)


def comparison(
    model: nn.Module,
    images: Tensor,
    explanations: Mapping[str, Explanation],
    path: str | Path | None = None,
    categories: Sequence[str] = (),
) -> Figure:
    """Draws methods side by side, and how the model takes to what each map shows.

    Beneath each overlay stand the image's drop of the explained class's probability behind the
    map, the AD of L-CAM's tables, and IC, 100 % where that probability has risen and 0 % where not.
    Overlays are of the maps as these are scored, min-maxed: what is negative is seen, too.

    Args:
        model: The classifier that was explained; left as it was.
        images: (B, C, H, W), the images that were explained; C of 1 or 3.
        explanations: Of these images, by the title of the column.
        path: Where to write the picture; see `plot`.
        categories: Names of the model's classes.

    Raises:
        ValueError: No explanations, or not of these images; matplotlib writes no such kind of file.
        OSError: The folder is missing or cannot be written to.
    """
    from xcam.metrics import AverageDrop, IncreaseInConfidence

    if not explanations:
        raise ValueError("there is nothing to compare; give explanations by title")
    beneath = {}
    for title, explanation in explanations.items():
        drops = AverageDrop().score(model, images, explanation).tolist()
        rises = IncreaseInConfidence(strict=True).score(model, images, explanation).tolist()
        pairs = zip(drops, rises, strict=True)
        beneath[title] = [f"AD {drop:.0f} %, IC {rise:.0f} %" for drop, rise in pairs]
    overlays = {
        title: imaging.overlay(images, imaging.normalize(one.maps))
        for title, one in explanations.items()
    }
    rows = captions(next(iter(explanations.values())), categories)
    return grid(images, overlays, rows, path, beneath=beneath)


def curves(points: pd.DataFrame, title: str, path: str | Path | None = None) -> Figure:
    """Draws curves with their intervals as bands, a model a panel.

    Args:
        points: Columns `model`, `method`, `x`, `y`, `low` and `high`; see `Results.curves`.
        title: Above the panels.
        path: Where to write the picture; see `plot`.

    Raises:
        ValueError: matplotlib writes no such kind of file.
        OSError: The folder is missing or cannot be written to.
    """
    from matplotlib.figure import Figure

    models = points["model"].unique()
    figure = Figure(figsize=(5 * len(models), 3.5), dpi=_DPI, layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False, sharey=True)[0]
    for axes, model in zip(panels, models, strict=True):
        for method, curve in points[points["model"] == model].groupby("method"):
            axes.plot(curve["x"], curve["y"], label=str(method), linewidth=1.2)
            axes.fill_between(curve["x"], curve["low"], curve["high"], alpha=0.2, linewidth=0)
        axes.set_title(model, fontsize=9, color=_INK)
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10, color=_INK)
    return _written(figure, path)


def captions(explanation: Explanation, categories: Sequence[str] = ()) -> list[str]:
    """What was explained of each image, on a line or two: class and probability.

    Where the model predicts another class than the one explained, that class is named too.

    Args:
        explanation: Of B images.
        categories: Names of the model's classes.
    """
    if explanation.target is None:
        return ["a score of\nthe output"] * len(explanation)
    explained = explanation.target.tolist()
    if explanation.logits is None:
        return [_name(index, categories) for index in explained]
    single = explanation.logits.shape[1] == 1
    odds = explanation.logits.sigmoid() if single else explanation.logits.softmax(1)
    lines = []
    for row, index in zip(odds, explained, strict=True):
        predicted = int(row.argmax())
        line = f"{_name(index, categories)}\n{float(row[index]):.0%}"
        if predicted != index:
            line += f"\n(predicted {_name(predicted, categories)})"
        lines.append(line)
    return lines


def _name(index: int, categories: Sequence[str]) -> str:
    name = categories[index] if index < len(categories) else f"class {index}"
    return textwrap.fill(name, 16)


def _show(axes: Axes, picture: Tensor) -> None:
    """Draws (1 or 3, H, W) in [0, 1] without ticks or frame."""
    pixels = picture.expand(3, -1, -1).movedim(0, -1).clamp(0, 1).cpu().numpy()
    axes.imshow(pixels, interpolation="antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _add_scale(figure: Figure) -> None:
    """Widens the figure by a scale of the overlays' colours."""
    from matplotlib.cm import ScalarMappable

    width, height = figure.get_size_inches()
    figure.set_size_inches(width + _SCALE, height)
    colors = ScalarMappable(cmap="turbo")
    scale = figure.colorbar(colors, ax=figure.axes, aspect=40, ticks=[0, 0.5, 1])
    scale.set_label("share of the map's maximum", fontsize=8, color=_INK)
    scale.ax.tick_params(labelsize=8, colors=_INK)
    scale.outline.set_visible(False)


def _written(figure: Figure, path: str | Path | None) -> Figure:
    """Writes the figure as the kind of file that the suffix says."""
    if path is not None:
        kind = Path(path).suffix.lstrip(".").lower()
        known = figure.canvas.get_supported_filetypes()
        if kind not in known:
            raise ValueError(f"no such kind of picture: {str(path)!r}; use .{', .'.join(known)}")
        content = io.BytesIO()
        figure.savefig(content, format=kind, bbox_inches="tight", pad_inches=0.08)
        files.write(path, content.getvalue())
    return figure
