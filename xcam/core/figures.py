"""Pictures of tensors: matplotlib figures, without its global state."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from xcam import imaging
from xcam.runs import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DPI", "INK", "draw_grid", "make_captions", "write_figure"]

DPI = 120
INK = "#222222"
_LETTERS_AN_INCH = 12.5
_LINE = 0.15  # inches that a line of text beneath a picture takes
_SCALE = 0.7  # inches that a scale of colors takes


def draw_grid(
    images: Tensor,
    columns: Mapping[str, Tensor],
    rows: Sequence[str] = (),
    path: str | Path | None = None,
    *,
    beneath: Mapping[str, Sequence[str]] = MappingProxyType({}),
    cell: float = 1.3,
    dpi: int = DPI,
    scale: Literal["positive", "diverging"] | None = None,
) -> Figure:
    """Draw a table of pictures: an image a row, the image itself and then a method a column.

    Args:
        images: (B, C, H, W), C of 1 or 3.
        columns: (B, 3, H, W) overlays in [0, 1] by title.
        rows: B labels, such as `Explanation.captions` returns; none by default.
        path: Where to write the picture, in the format of its suffix (.png, .pdf, .svg …).
        beneath: B lines of text by title, one below each overlay; none by default.
        cell: Width of a picture in inches.
        dpi: Pixels an inch.
        scale: A scale of the overlays' colors to add, of maps in [0, 1] or around zero; none by
            default.

    Raises:
        ValueError: Not B overlays, labels or lines of text; or matplotlib does not write the
            format.
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
        axes[0, column].set_title(textwrap.fill(title, int(cell * 12)), fontsize=9, color=INK)
        for row in range(count):
            _show(axes[row, column], batch[row])
            if beneath.get(title):
                axes[row, column].set_xlabel(beneath[title][row], fontsize=7, color=INK)
    for row, label in enumerate(rows):
        axes[row, 0].set_ylabel(
            label, rotation=0, ha="right", va="center", fontsize=9, color=INK, labelpad=6
        )
    if scale:
        _add_scale(figure, diverging=scale == "diverging")
    return write_figure(figure, path)


def make_captions(
    target: Tensor,
    logits: Tensor | None,
    categories: Sequence[str] = (),
    contrast: Tensor | None = None,
) -> list[str]:
    """Return for each image, in a few lines, the class explained and its probability.

    Where the model predicts another class than the one explained, that class is named too, and so
    is the contrast.

    Args:
        target: (B,) int64, the class explained.
        logits: (B, K); without them there is no probability.
        categories: Names of the model's classes; without them classes go by their numbers.
        contrast: (B,) int64, the class whose map was subtracted, if any was.
    """
    odds: list[Tensor | None] = [None] * len(target)
    if logits is not None:
        odds = [*(logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1))]
    others = [None] * len(target) if contrast is None else contrast.tolist()
    captions = []
    for row, index, other in zip(odds, target.tolist(), others, strict=True):
        lines = [_describe_class(index, row, categories)]
        if other is not None:
            lines.append(f"rather than\n{_describe_class(other, row, categories)}")
        predicted = index if row is None else int(row.argmax())
        if predicted not in (index, other):
            lines.append(f"(predicted {_name(predicted, categories)})")
        captions.append("\n".join(lines))
    return captions


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
        content = io.BytesIO()
        figure.savefig(content, format=kind, bbox_inches="tight", pad_inches=0.08)
        files.write(path, content.getvalue())
    return figure


def _describe_class(index: int, odds: Tensor | None, categories: Sequence[str]) -> str:
    share = "" if odds is None else f"\n{float(odds[index]):.0%}"
    return _name(index, categories) + share


def _name(index: int, categories: Sequence[str]) -> str:
    name = categories[index] if index < len(categories) else f"class {index}"
    return textwrap.fill(name, 16)


def _show(axes: Axes, picture: Tensor) -> None:
    """Draw (1 or 3, H, W) in [0, 1] without ticks or frame."""
    pixels = picture.expand(3, -1, -1).movedim(0, -1).clamp(0, 1).cpu().numpy()
    axes.imshow(pixels, interpolation="antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _add_scale(figure: Figure, diverging: bool) -> None:
    """Widen the figure by a scale of the overlays' colors, with a contrast around zero."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    width, height = figure.get_size_inches()
    figure.set_size_inches(width + _SCALE, height)
    name, lowest = (imaging.DIVERGING, -1) if diverging else (imaging.SEQUENTIAL, 0)
    colors = ScalarMappable(Normalize(lowest, 1), name)
    bar = figure.colorbar(colors, ax=figure.axes, aspect=40, ticks=[lowest, (lowest + 1) / 2, 1])
    label = "against … for, share of the largest" if diverging else "share of the map's maximum"
    bar.set_label(label, fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_visible(False)
