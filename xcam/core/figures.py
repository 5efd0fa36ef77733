"""Pictures of tensors: matplotlib figures, without its global state."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from xcam import imaging
from xcam.core.captions import fit_text
from xcam.core.grid import FONT, Grid
from xcam.runs import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DPI", "INK", "Scale", "draw_grid", "make_figure", "render", "write_figure"]

DPI = 120
INK = "#222222"
_SMALL = 7.0  # points
_BAR = (0.12, 2.0)  # inches: width and height of a scale of colors


@dataclass(frozen=True)
class Scale:
    """The scale of an overlay's colors, drawn as they are seen on a gray picture.

    Attributes:
        alpha: The opacity where the map is highest; None for maps without images, in full colors.
        colors: A matplotlib color map; None for that of `xcam.imaging.overlay`.
        diverging: Whether the colors diverge around zero.
    """

    alpha: float | None = 0.6
    colors: str | None = None
    diverging: bool = False


def draw_grid(
    images: Tensor | Sequence[Tensor],
    columns: Mapping[str, Tensor | Sequence[Tensor]],
    rows: Sequence[str] = (),
    path: str | Path | None = None,
    *,
    beneath: Mapping[str, Sequence[str]] = MappingProxyType({}),
    marks: Mapping[str, Sequence[str]] = MappingProxyType({}),
    cell: float = 1.3,
    dpi: int = DPI,
    scale: Scale | None = None,
    wraps: bool = False,
) -> Figure:
    """Draw a table of pictures: an image a row, the image itself and then a method a column.

    Args:
        images: (B, C, H, W), C of 1 or 3, or B of (C, H, W); none, to draw the columns alone.
        columns: (B, 3, H, W) overlays in [0, 1], or B of (3, H, W), by title.
        rows: B labels, such as `Explanation.captions` returns; none by default.
        path: Where to write the picture, in the format of its suffix (.png, .pdf, .svg …).
        beneath: B lines of text by title, below each overlay; none by default.
        marks: B words by title to print on overlays, empty ones for none.
        cell: Width of a picture in inches.
        dpi: Pixels an inch.
        scale: Of the overlays' colors, to add; none by default.
        wraps: Whether more than eight images are drawn in several such tables side by side.

    Raises:
        ValueError: Not B overlays, labels or lines of text; or matplotlib does not write the
            format.
        OSError: The folder is missing or cannot be written to.
    """
    count = len(images) or max(map(len, columns.values()))
    _check_counts(count, columns, (rows, *beneath.values(), *marks.values()))
    pictures = {**_stretch(images), **columns}
    texts = {
        title: [fit_text(one, cell, (_SMALL, 6, 5)) for one in lines]
        for title, lines in beneath.items()
        if lines
    }
    titles = {title: fit_text(title, cell) for title in pictures}
    layout = Grid.of(pictures, rows, titles.values(), texts, cell, scale is not None, wraps)
    figure = make_figure(layout.size, dpi)
    for row in range(count):
        drawn = [figure.add_axes(layout.place(row, column)) for column in range(layout.columns)]
        for axes, (title, batch) in zip(drawn, pictures.items(), strict=True):
            _show(axes, batch[row])
            if layout.is_top(row):
                _write(axes.set_title, *titles[title], pad=3)
            if title in texts:
                _write(axes.set_xlabel, *texts[title][row], labelpad=2)
            if title in marks:
                _mark(axes, marks[title][row])
        if rows:
            beside = {"rotation": 0, "ha": "right", "va": "center", "labelpad": 5}
            _write(drawn[0].set_ylabel, rows[row], FONT, **beside)
    if scale is not None:
        _add_scale(figure, layout, scale)
    return write_figure(figure, path)


def make_figure(
    size: tuple[float, float], dpi: int = DPI, layout: Literal["constrained"] | None = None
) -> Figure:
    """Return an empty white figure of a size in inches.

    It is none of pyplot's, so that matplotlib does not keep it; a notebook shows it all the same,
    without `%matplotlib inline`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=dpi, layout=layout, facecolor="white")
    vars(figure)["_repr_png_"] = partial(render, figure)
    return figure


def render(figure: Figure, kind: str = "png") -> bytes:
    """Return a figure as the content of a file of a kind."""
    content = io.BytesIO()
    figure.savefig(content, format=kind, bbox_inches="tight", pad_inches=0.08)
    return content.getvalue()


def write_figure(figure: Figure, path: str | Path | None) -> Figure:
    """Write the figure in the format of the path's suffix, unless there is no path; return it.

    Raises:
        ValueError: matplotlib does not write the format.
        OSError: The folder is missing or cannot be written to.
    """
    if path is not None:
        kind = Path(path).suffix.lstrip(".").lower()
        known = figure.canvas.get_supported_filetypes()
        if kind not in known:
            raise ValueError(f"no such kind of picture: {str(path)!r}; use .{', .'.join(known)}")
        files.write(path, render(figure, kind))
    return figure


def _check_counts(
    count: int,
    columns: Mapping[str, Tensor | Sequence[Tensor]],
    texts: Iterable[Sequence[str]],
) -> None:
    for title, overlays in columns.items():
        if len(overlays) != count:
            raise ValueError(f"{title!r} has {len(overlays)} overlays for {count} images")
    for labels in filter(None, texts):
        if len(labels) != count:
            raise ValueError(f"{len(labels)} labels for {count} images")


def _stretch(images: Tensor | Sequence[Tensor]) -> dict[str, Any]:
    if not len(images):
        return {}
    if isinstance(images, Tensor):
        return {"image": imaging.stretch(images.detach().float())}
    return {"image": [imaging.stretch(one[None].detach().float())[0] for one in images]}


def _show(axes: Axes, picture: Tensor) -> None:
    """Draw (1 or 3, H, W) in [0, 1] without ticks or frame."""
    pixels = picture.expand(3, -1, -1).movedim(0, -1).clamp(0, 1).cpu().numpy()
    axes.imshow(pixels, interpolation="antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _write(place: Callable[..., object], text: str, size: float, **settings: Any) -> None:  # noqa: ANN401
    place(text, fontsize=size, color=INK, **settings)


def _mark(axes: Axes, words: str) -> None:
    if words:
        box = {
            "facecolor": "white",
            "alpha": 0.85,
            "edgecolor": "none",
            "boxstyle": "round,pad=0.3",
        }
        middle: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, words, fontsize=_SMALL, color=INK, bbox=box, **middle)


def _add_scale(figure: Figure, layout: Grid, scale: Scale) -> None:
    """Draw the scale of the overlays' colors beside the pictures, of a fixed size."""
    lowest = -1 if scale.diverging else 0
    values = torch.linspace(1, lowest, 256)[None, :, None]
    if scale.alpha is None:
        colors = imaging.shade(values, scale.colors, scale.diverging)
    else:
        gray = torch.full((1, 3, 256, 1), 0.5)
        colors = imaging.blend(gray, values, scale.alpha, scale.colors, scale.diverging)
    width, height = _BAR[0], min(_BAR[1], layout.size[1] - 0.3)
    left = layout.blocks * layout.block + 0.08
    top = max(0.1, min(layout.head, layout.size[1] - height - 0.1))
    axes = figure.add_axes(layout.scale(left, top, width, height))
    axes.imshow(colors[0].movedim(0, -1).numpy(), aspect="auto", extent=(0, 1, lowest, 1))
    axes.set_xticks([])
    axes.set_yticks([lowest, (lowest + 1) / 2, 1])
    axes.yaxis.tick_right()
    axes.tick_params(labelsize=_SMALL, colors=INK, length=2)
    axes.spines[:].set_visible(False)
    axes.yaxis.set_label_position("right")
    label = "against … for, share of the largest" if scale.diverging else "share of the maximum"
    axes.set_ylabel(label, fontsize=_SMALL, color=INK)
