"""Where the pictures of a table of pictures lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from xcam.core.captions import measure_text

__all__ = ["FONT", "Grid"]

FONT = 9.0  # points, of the labels beside the pictures
_SPACING = 1.25  # of lines, in font sizes
_GAP = 0.04  # inches between pictures
_TALLEST = 1.6  # height of a picture, in widths
_ROWS = 8  # pictures below each other before there is another block of them


@dataclass(frozen=True)
class Grid:
    """Where the pictures of a grid lie, in inches from the top left corner.

    Attributes:
        columns: Pictures of a row, in each block.
        rows: Rows of a block.
        blocks: Tables side by side.
        cell: Width of a picture.
        heights: Of the rows' pictures.
        margin: Width of the labels beside a row.
        head: Height of the titles.
        foot: Height of the text beneath each row.
        bar: Width that the scale of colors takes.
    """

    columns: int
    rows: int
    blocks: int
    cell: float
    heights: tuple[float, ...]
    margin: float
    head: float
    foot: float
    bar: float

    @classmethod
    def of(
        cls,
        pictures: Mapping[str, Tensor | Sequence[Tensor]],
        rows: Sequence[str],
        titles: Iterable[tuple[str, float]],
        texts: Mapping[str, Sequence[tuple[str, float]]],
        cell: float,
        has_bar: bool,
        wraps: bool,
    ) -> Grid:
        """Measure the texts, and lay out the pictures in as many blocks as they need."""
        batches = [*pictures.values()]
        count = len(batches[0])
        labels = (measure_text(line, FONT) for row in rows for line in row.split("\n"))
        margin = max(labels, default=0) + (0.12 if rows else 0.04)
        foot = max((_measure_height(*one) for lines in texts.values() for one in lines), default=0)
        least = max((_measure_height(row, FONT) for row in rows), default=0)
        shapes = [
            [one.shape[-2] / one.shape[-1] for one in each] for each in zip(*batches, strict=True)
        ]
        heights = [max(cell * min(max(each), _TALLEST), least) for each in shapes]
        width = margin + len(batches) * (cell + _GAP)
        blocks = 1
        while wraps and -(-count // blocks) > _ROWS and sum(heights) / blocks > blocks * width:
            blocks += 1
        lines = -(-count // blocks)
        return cls(
            columns=len(batches),
            rows=lines,
            blocks=blocks,
            cell=cell,
            heights=tuple(max(heights[line::lines]) for line in range(lines)),
            margin=margin,
            head=max(_measure_height(*title) for title in titles) + 0.06,
            foot=foot + (0.05 if foot else 0),
            bar=0.75 if has_bar else 0,
        )

    @property
    def block(self) -> float:
        """Return the width of a block."""
        return self.margin + self.columns * (self.cell + _GAP)

    @property
    def size(self) -> tuple[float, float]:
        """Return the (width, height) of the figure."""
        height = self.head + sum(self.heights) + self.rows * (self.foot + _GAP)
        return self.blocks * self.block + self.bar, max(height, 1.4 if self.bar else 0)

    def is_top(self, row: int) -> bool:
        """Return whether an image is the first of its block."""
        return row % self.rows == 0

    def place(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Return (left, bottom, width, height) of a picture, as shares of the figure."""
        block, line = divmod(row, self.rows)
        left = block * self.block + self.margin + column * (self.cell + _GAP)
        top = self.head + sum(self.heights[:line]) + line * (self.foot + _GAP)
        return self.scale(left, top, self.cell, self.heights[line])

    def scale(
        self, left: float, top: float, width: float, height: float
    ) -> tuple[float, float, float, float]:
        """Return a box in inches, from the top, as shares of the figure, from the bottom."""
        across, down = self.size
        return left / across, 1 - (top + height) / down, width / across, height / down


def _measure_height(text: str, size: float) -> float:
    return (text.count("\n") + 1) * size * _SPACING / 72
