"""Explanations as a page of HTML: images beside their overlays, with what made them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from xcam.core import drawing
from xcam.core.method import Method, SavedMethod
from xcam.core.page import Example, encode_picture, write_page
from xcam.errors import XcamWarning
from xcam.imaging import Pictures, read_picture, stretch
from xcam.sentences import pluralize

if TYPE_CHECKING:
    from xcam.core.explanation import Explanation

__all__ = ["IMAGE", "MOST", "SIDE", "lay_over", "write_examples", "write_explanation_page"]

IMAGE = "image"
"""The column of the images themselves."""
SIDE = 440
"""Pixels of the longer side of a picture on a page."""
MOST = 100
"""Images on a page."""
_LEGEND = (
    "Overlays: the map in color where it is positive, from nothing through blue and green to red "
    "at its maximum, each map by itself. Maps of a signed value for each pixel, and those with a "
    "contrast, diverge around zero: red speaks for the class, blue against it."
)


def write_explanation_page(
    explanation: Explanation,
    images: Tensor | Pictures,
    rows: Sequence[str],
    titles: Sequence[str],
    path: str | Path,
) -> None:
    """Write the page of one explanation; see `Explanation.to_html`.

    Args:
        explanation: What is shown.
        images: The images that were explained, or photographs.
        rows: What `make_rows` returned for these titles.
        titles: What each image is called; by default its file's name, or its number.
        path: The file.
    """
    if isinstance(titles, str):
        titles = [titles]
    titles = titles or drawing.list_titles(explanation, images)
    shown = min(len(explanation), MOST)
    photographs = drawing.list_photographs(explanation, images)
    title = explanation.method.spec.title
    examples = []
    for place in range(shown):
        single = explanation[place]
        if photographs is None:
            assert isinstance(images, Tensor)  # else there are photographs
            batch = images[place : place + 1].detach()
            image, overlay = stretch(batch.float())[0], lay_over(single, batch)
        else:
            image = drawing.shrink(read_picture(photographs[place]), SIDE).clamp(0, 1)
            overlay = lay_over(single, [image])
        pictures = {IMAGE: encode_picture(image, SIDE), title: encode_picture(overlay, SIDE)}
        notes = {title: " ".join(note.text for note in single.notes)}
        name = titles[place] if titles else f"image {place}"
        examples.append(Example(name, rows[place].removeprefix(f"{name}\n"), pictures, notes))
    write_examples(path, examples, {title: explanation.method}, len(explanation))


def lay_over(single: Explanation, image: Tensor | Pictures) -> Tensor:
    """Return an image (3, H, W) under its map, without a warning: the page prints the notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XcamWarning)
        return single.overlay(image)[0]


def write_examples(
    path: str | Path,
    examples: Sequence[Example],
    methods: Mapping[str, Method | SavedMethod],
    count: int,
    command: str = "",
) -> None:
    """Write a page of images beside their overlays.

    Args:
        path: The file.
        examples: A row each.
        methods: What made the maps, by the title of the column.
        count: How many images there are; if that is more than the examples, the page says so.
        command: What was typed, if that is known.

    Raises:
        OSError: The folder is missing or cannot be written to.
    """
    notices = []
    if len(examples) < count:
        notices.append(f"The first {len(examples)} of {count} images are shown.")
    content = {
        "title": f"{', '.join(methods)} of {pluralize(count, 'image')}",
        "columns": [IMAGE, *methods],
        "examples": examples,
        "methods": [
            {"title": column, "settings": repr(method), "paper": method.spec.paper}
            for column, method in methods.items()
        ],
        "notices": notices,
        "legend": _LEGEND,
        "command": command,
    }
    write_page(path, "explanation.html", content)
