"""The command `report`, and what commands leave for the pages that they write."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xcam.cli.application import app

if TYPE_CHECKING:
    from torch import Tensor

    from xcam.cli.photos import Photo
    from xcam.core import Explanation
    from xcam.core.page import Example

__all__ = ["PageWriter", "check_page", "describe_command", "report"]


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(help="Folder of an evaluation, its --out.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    data: Annotated[
        Path | None,
        typer.Option(
            help="The pictures that were evaluated, as --data of evaluate, to lay the maps over; "
            "for an evaluation with --save-maps.",
            show_default="maps on gray",
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that the files of a list start from.")
    ] = None,
    size: Annotated[int, typer.Option(help="Side that the pictures are cropped to.")] = 224,
    resize: Annotated[
        str | None, typer.Option(help="As --resize of the evaluation, if it had one.")
    ] = None,
    title: Annotated[
        str, typer.Option(help="Write this at the top of the page.", show_default="the models")
    ] = "",
    seed: Annotated[int, typer.Option(help="Choose the examples by this seed.")] = 0,
    examples: Annotated[int, typer.Option(help="How many pictures to draw.")] = 6,
    worst: Annotated[
        int, typer.Option(help="How many of those to show on which the methods score worst.")
    ] = 6,
) -> None:
    """Write the results of an evaluation as a page of HTML, to pass on or to print.

    The page holds all that it shows: a table that sorts, ranks, costs, curves, and, of an
    evaluation with --save-maps, pictures under their maps.
    """
    check_page("--out", out)
    from xcam.cli.pictures import make_loader
    from xcam.results import Results

    results = Results(folder)
    pictures = None if data is None else make_loader(data, root, size, resize, {}, 1, 0)
    results.to_html(out, pictures, title=title, seed=seed, examples=examples, worst=worst)
    typer.echo(f"page -> {out}")


@dataclass
class PageWriter:
    """Collects what `explain` shows on a page, of the first pictures, and writes it.

    Attributes:
        path: Of the page; None for no page.
        count: How many pictures are explained.
    """

    path: Path | None
    count: int
    examples: list[Example] = field(default_factory=list)
    methods: dict[str, Any] = field(default_factory=dict)

    def add(
        self,
        photo: Photo,
        image: Tensor | None,
        singles: Sequence[Explanation],
        overlays: Sequence[Tensor],
        caption: str,
    ) -> None:
        """Add a picture and its overlays.

        Args:
            photo: The picture.
            image: (C, H, W), what stands beside the overlays; None for the photograph.
            singles: Its explanation by each method.
            overlays: (3, H, W) each.
            caption: What the net sees.
        """
        from xcam.core.explanation_page import IMAGE, MOST, SIDE
        from xcam.core.page import Example, encode_picture
        from xcam.imaging import read_picture, stretch

        if self.path is None or len(self.examples) == MOST:
            return
        titles = [single.method.spec.title for single in singles]
        columns = [
            title if titles.count(title) == 1 else repr(single.method)
            for title, single in zip(titles, singles, strict=True)
        ]
        self.methods = dict(zip(columns, (single.method for single in singles), strict=True))
        shown = read_picture(photo.path) if image is None else stretch(image[None])[0]
        pictures = {IMAGE: encode_picture(shown, SIDE)}
        pictures |= {
            column: encode_picture(overlay, SIDE)
            for column, overlay in zip(columns, overlays, strict=True)
        }
        notes = {
            column: " ".join(note.text for note in single.notes)
            for column, single in zip(columns, singles, strict=True)
        }
        self.examples.append(Example(str(photo.place), caption, pictures, notes))

    def write(self) -> None:
        """Write the page, if there is one and anything on it, and print where it is."""
        from xcam.core.explanation_page import write_examples

        if self.path is None or not self.examples:
            return
        write_examples(self.path, self.examples, self.methods, self.count, describe_command())
        typer.echo(f"page -> {self.path}")


def check_page(option: str, page: Path | None) -> None:
    """Refuse a page in a folder that is not there, before any work is done.

    Raises:
        FileNotFoundError: There is no such folder.
        IsADirectoryError: The page is a folder.
    """
    if page is None:
        return
    if not page.parent.is_dir():
        raise FileNotFoundError(f"no folder {str(page.parent)!r} for {option}")
    if page.is_dir():
        raise IsADirectoryError(f"{str(page)!r} for {option} is a folder; give a file in it")


def describe_command() -> str:
    """Return the command that runs, as a shell takes it."""
    from xcam.sentences import escape_name

    return escape_name(shlex.join(["xcam", *sys.argv[1:]]))
