"""Explanations as pictures: how maps are shaded, laid on images and arranged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from xcam import imaging
from xcam.core.captions import name_class
from xcam.core.figures import Scale, draw_grid
from xcam.core.notes import map_notes
from xcam.errors import warn
from xcam.imaging import Pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xcam.core.explanation import Explanation

__all__ = [
    "Style",
    "draw_explanation",
    "draw_maps",
    "list_photographs",
    "list_titles",
    "make_rows",
    "overlay",
    "shrink",
]

_CELL = 2.6  # inches
_MOST_MAPS = 24  # of a batch that a notebook shows by itself


@dataclass(frozen=True)
class Style:
    """How maps are laid on images; `Explanation.overlay` documents the fields."""

    alpha: float = 0.6
    colors: str | None = None
    relu: bool | None = None
    background: imaging.Background = "color"
    contours: tuple[float, ...] = ()


def overlay(explanation: Explanation, images: Tensor | Pictures, style: Style) -> Tensor:
    """Return images under maps, (B, 3, H, W); see `Explanation.overlay`."""
    photographs = list_photographs(explanation, images)
    if photographs is None:
        shades, diverging = _shade(explanation, style.relu), _diverges(explanation, style.relu)
        return _lay_over(images, shades, style, diverging)  # type: ignore[arg-type]  # a tensor
    read = [imaging.read_picture(one) for one in photographs]
    if len({one.shape for one in read}) > 1:
        raise ValueError(
            "the photographs differ in size; lay each map over its own: [one.overlay(photograph) "
            "for one, photograph in zip(explanation, photographs)]"
        )
    return torch.cat(_place(explanation, read, style))


def draw_explanation(
    explanation: Explanation,
    images: Tensor | Pictures,
    rows: Sequence[str],
    style: Style,
    path: str | Path | None,
    dpi: int,
) -> Figure:
    """Draw each image beside its overlay; see `Explanation.plot`."""
    photographs = list_photographs(explanation, images)
    shown: Tensor | list[Tensor]
    overlays: Tensor | list[Tensor]
    if photographs is None:
        shown, overlays = images, overlay(explanation, images, style)  # type: ignore[assignment]
    else:
        finest = math.ceil(_CELL * dpi)
        shown = [shrink(imaging.read_picture(one), finest) for one in photographs]
        overlays = [one[0] for one in _place(explanation, shown, style)]
    title = explanation.method.spec.title
    return draw_grid(
        shown,
        {title: overlays},
        rows,
        path,
        marks={title: _find_marks(explanation)},
        cell=_CELL,
        dpi=dpi,
        scale=Scale(style.alpha, style.colors, _diverges(explanation, style.relu)),
        wraps=True,
    )


def draw_maps(explanation: Explanation) -> Figure:
    """Draw the maps without their images, the first ones of many, as a notebook shows them."""
    few = explanation[:_MOST_MAPS]
    shades = _shade(few, None, warns=False)
    diverging = _diverges(few, None)
    title = few.method.spec.title
    maps = imaging.shade(shades, diverging=diverging)
    rows = few.captions()
    if len(few) < len(explanation):
        rows[-1] += f"\n… and {len(explanation) - len(few)} more"
    scale = Scale(alpha=None, diverging=diverging)
    return draw_grid(
        (), {title: maps}, rows, marks={title: _find_marks(few)}, cell=1.6, scale=scale
    )


def make_rows(
    explanation: Explanation,
    images: Tensor | Pictures,
    categories: Sequence[str],
    titles: Sequence[str],
    labels: Sequence[int] | Sequence[str] | Tensor | None,
) -> list[str]:
    """Return the caption of each image, with its title and its true class.

    Raises:
        ValueError: Not a title, or a label, for each image.
    """
    titles = titles or list_titles(explanation, images)
    if isinstance(titles, str):
        titles = [titles]
    known = labels.tolist() if isinstance(labels, Tensor) else labels
    for what, given in (("titles", titles), ("labels", known)):
        if given is not None and len(given) not in (0, len(explanation)):
            raise ValueError(
                f"got {len(given)} {what} for {len(explanation)} images; give one for each"
            )
    rows = explanation.captions(categories)
    if known is not None and len(known):
        names = [one if isinstance(one, str) else name_class(int(one), categories) for one in known]
        rows = [f"{row}\n(label {name})" for row, name in zip(rows, names, strict=True)]
    return [f"{title}\n{row}" for title, row in zip(titles, rows, strict=True)] if titles else rows


def list_titles(explanation: Explanation, images: Tensor | Pictures) -> list[str]:
    """Return the names of the files, where the images are files; else none."""
    found = list_photographs(explanation, images) or []
    paths = [one for one in found if isinstance(one, str | Path)]
    return [Path(one).name for one in paths] if len(paths) == len(found) else []


def _is_of_pixels(explanation: Explanation) -> bool:
    """Return whether the maps are of single pixels, as those of gradients at the image."""
    raw = explanation.raw
    at_pixels = raw.shape[-2:] == explanation.size
    return raw.ndim == 4 or (explanation.method.spec.family == "gradient" and at_pixels)


def _diverges(explanation: Explanation, relu: bool | None) -> bool:
    """Return whether maps are shown with both signs, in colors that diverge around zero."""
    if relu:
        return False
    method = explanation.method
    is_signed = method.spec.signed and method.parameters().get("reduce", "sum") == "sum"
    return explanation.contrast is not None or (is_signed and _is_of_pixels(explanation))


def _shade(explanation: Explanation, relu: bool | None, warns: bool = True) -> Tensor:
    """Return maps for the eye, (B, H, W) in [0, 1], or in [−1, 1] where they diverge."""
    diverges = _diverges(explanation, relu)
    maps, cuts = explanation.maps, relu is not False
    if warns:
        for note in map_notes(maps, negative=cuts and not diverges):
            warn(str(note))
    if diverges:
        shades = imaging.normalize_signed(maps)
    else:
        shades = imaging.normalize(maps.clamp(min=0) if cuts else maps)
    return imaging.brighten(shades) if _is_of_pixels(explanation) else shades


def _lay_over(images: Tensor, shades: Tensor, style: Style, diverging: bool) -> Tensor:
    laid = imaging.overlay(
        images, shades, style.alpha, style.colors, diverging, background=style.background
    )
    return imaging.outline(laid, shades, style.contours)


def _place(explanation: Explanation, photographs: Sequence[Tensor], style: Style) -> list[Tensor]:
    """Return each photograph (C, H, W) under its map, (1, 3, H, W), faded where it was cropped."""
    shades, diverging = _shade(explanation, style.relu), _diverges(explanation, style.relu)
    placed = []
    for photograph, single in zip(photographs, shades.cpu(), strict=True):
        height, width = photograph.shape[1:]
        large, seen = imaging.unfit(single[None], (height, width))
        laid = _lay_over(photograph[None], large, style, diverging)
        placed.append(imaging.fade(laid, seen))
    return placed


def list_photographs(
    explanation: Explanation, images: Tensor | Pictures
) -> list[imaging.Picture] | None:
    """Return photographs one by one; None for a batch of the images that were explained.

    Raises:
        TypeError: Neither of them.
        ValueError: Not one for each map, or a batch of another size.
    """
    photographs = imaging.list_pictures(images)
    if photographs is not None:
        if len(photographs) != len(explanation):
            raise ValueError(
                f"the explanation is of {len(explanation)} images, got {len(photographs)}"
            )
        return photographs
    if not isinstance(images, Tensor):
        raise TypeError(
            f"images must be a torch tensor or photographs, got {type(images).__name__}"
        )
    count, (height, width) = len(explanation), explanation.size
    if images.ndim != 4 or (len(images), *images.shape[2:]) != (count, height, width):
        raise ValueError(
            f"the explanation is of {count} images of {height}×{width}, got images of shape "
            f"{tuple(images.shape)}"
        )
    return None


def shrink(photograph: Tensor, longest: int) -> Tensor:
    """Resize a photograph (C, H, W) whose longer side is longer than that."""
    scale = longest / max(photograph.shape[1:])
    if scale >= 1:
        return photograph
    size = [max(1, round(side * scale)) for side in photograph.shape[1:]]
    resized = F.interpolate(photograph[None], size, mode="bilinear", antialias=True)
    return resized[0]


def _find_marks(explanation: Explanation) -> list[str]:
    """Return for each image what its map shows, in two words, where that is nothing."""
    maps = explanation.maps
    flat = imaging.is_flat(maps).tolist()
    nowhere = (maps.flatten(1).amax(1) <= 0).tolist()
    if _diverges(explanation, None):
        nowhere = [False] * len(nowhere)
    return [
        "flat map" if is_flat else "nowhere positive" if is_nowhere else ""
        for is_flat, is_nowhere in zip(flat, nowhere, strict=True)
    ]
