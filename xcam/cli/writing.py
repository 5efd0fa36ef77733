"""What `explain` writes of each picture: overlays with captions, maps, and a line."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from xcam.cli.photos import Photo
from xcam.cli.reporting import PageWriter

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from xcam.core import Explanation

__all__ = ["ResultWriter", "describe_classes", "make_caption", "write_overlay"]

_INK, _PAPER = (34, 34, 34), (255, 255, 255)
_LETTERS = 44  # that fit a line of a wide picture


@dataclass
class ResultWriter:
    """Writes what was explained."""

    categories: Sequence[str]
    caption: bool
    cropped: bool
    npy: Path | None
    several: bool
    page: PageWriter
    parts: list[Explanation] = field(default_factory=list)
    announced: bool = False

    def announce(self, methods: Sequence[Any]) -> None:
        """Print the methods with all their settings, once."""
        if not self.announced:
            for method in methods:
                typer.echo(repr(method))
        self.announced = True

    def write(
        self, photo: Photo, image: Tensor, singles: Sequence[Explanation], paths: Sequence[Path]
    ) -> None:
        """Write the overlay and the map of a picture by each method, and print a line."""
        from xcam.explanations.folder import write_array

        overlays = []
        for single, path in zip(singles, paths, strict=True):
            # What was resized in a way of its own cannot be put back on the photograph.
            (picture,) = single.overlay(image[None] if self.cropped else [photo.path])
            text = make_caption(single, self.categories, photo.label) if self.caption else None
            write_overlay(picture, text, path)
            overlays.append(picture)
            if self.npy:
                inside = self.npy / single.method.spec.name if self.several else self.npy
                write_array(inside / photo.place.with_suffix(".npy"), single.maps[0])
        seen = describe_classes(singles[0], self.categories, photo.label)
        self.page.add(photo, image if self.cropped else None, singles, overlays, seen)
        typer.echo(f"{photo.path}: {seen} -> {', '.join(map(str, paths))}")


def write_overlay(pixels: Tensor, caption: str | None, path: Path) -> None:
    """Write a picture (3, H, W) in [0, 1] as PNG, with a caption below it if there is one."""
    from PIL import Image

    from xcam.runs import files

    values = (pixels * 255).round().byte().movedim(0, -1).cpu().numpy()
    picture = Image.fromarray(values)
    files.create_folder(path.parent)
    content = io.BytesIO()
    (picture if caption is None else _add_caption(picture, caption)).save(content, "PNG")
    files.write(path, content.getvalue())


def make_caption(single: Explanation, categories: Sequence[str], label: int | None) -> str:
    """Return the method, the class explained and its probability, and what to know of the map."""
    from xcam.sentences import escape_name

    lines = [f"{single.method.spec.title}: {describe_classes(single, categories, label, most=1)}"]
    lines += [note.text for note in single.notes]
    return escape_name("\n".join(lines))


def describe_classes(
    single: Explanation, categories: Sequence[str], label: int | None = None, most: int = 3
) -> str:
    """Return the most probable classes, and the one explained if it is another.

    Args:
        single: Of one image.
        categories: The names of the classes, as far as they are known.
        label: The class that the image shows, if that is known.
        most: How many classes to name.
    """
    if single.logits is None or single.target is None:
        return "no classes"
    logits = single.logits[0]
    odds = logits.softmax(0) if len(logits) > 1 else logits.sigmoid()
    best = odds.topk(min(most, len(odds))).indices.tolist()
    explained = int(single.target[0])

    def name(index: int) -> str:
        return categories[index] if index < len(categories) else f"class {index}"

    def show(index: int) -> str:
        return f"{name(index)} {float(odds[index]):.1%}"

    listed = ", ".join(show(index) for index in best)
    if explained != best[0]:
        listed += f"; explained: {show(explained)}"
    if single.contrast is not None:
        listed += f"; rather than: {show(int(single.contrast[0]))}"
    if label is not None:
        listed += f"; labeled: {name(label)}"
    return listed


def _add_caption(picture: Image, text: str) -> Image:
    """Return a picture with lines of text below it, as large as its width asks for."""
    import matplotlib as mpl
    from PIL import Image, ImageDraw, ImageFont

    size = max(11, round(picture.width / 30))
    letters = max(8, min(_LETTERS, round(picture.width / (0.62 * size))))
    lines = [line for part in text.split("\n") for line in textwrap.wrap(part, letters)]
    # matplotlib's own font has letters of many languages, and is there on every system.
    font = ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)
    margin, step = round(0.5 * size), round(1.35 * size)
    height = picture.height + 2 * margin + step * len(lines)
    page = Image.new("RGB", (picture.width, height), _PAPER)
    page.paste(picture)
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        draw.text((margin, picture.height + margin + step * number), line, _INK, font)
    return page
