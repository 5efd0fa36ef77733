"""Texts of pictures: captions of explanations, and lines that fit beside or above them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

from torch import Tensor

__all__ = ["fit_text", "make_captions", "measure_text", "name_class"]

_WIDTH = 16  # letters of a line of a caption, unless a word is longer
_SIZES = (9.0, 8.0, 7.0, 6.0)  # points


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
            lines.append(f"(predicted {name_class(predicted, categories)})")
        captions.append("\n".join(lines))
    return captions


def name_class(index: int, categories: Sequence[str]) -> str:
    """Return the name of a class, or its number, in short lines."""
    name = categories[index] if index < len(categories) else f"class {index}"
    return "\n".join(_wrap(name, _WIDTH, len))


def _describe_class(index: int, odds: Tensor | None, categories: Sequence[str]) -> str:
    share = "" if odds is None else f"\n{float(odds[index]):.0%}"
    return name_class(index, categories) + share


def fit_text(text: str, width: float, sizes: Sequence[float] = _SIZES) -> tuple[str, float]:
    """Split a text at its words into lines of a width; return it with the largest size that fits.

    Where a word is too long at any size, it is broken, at punctuation if it has any.

    Args:
        text: One or more lines.
        width: In inches.
        sizes: Of the font, in points, the largest first.
    """
    given = text.split("\n")
    for size in sizes:
        measure = partial(measure_text, size=size)
        lines = [part for line in given for part in _wrap(line, width, measure)]
        if all(measure(line) <= width for line in lines):
            return "\n".join(lines), size
    pieces = [_break_words(line, width, measure) for line in lines]
    return "\n".join(piece for line in pieces for piece in line), sizes[-1]


@lru_cache(maxsize=4096)
def measure_text(line: str, size: float) -> float:
    """Return the width of a line in inches, in matplotlib's default font of a size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width: float = text_to_path.get_text_width_height_descent(
        line, FontProperties(size=size), ismath=False
    )[0]
    return width / 72


def _wrap(line: str, width: float, measure: Callable[[str], float]) -> list[str]:
    """Split a line between words, which stay whole whatever their length."""
    lines: list[str] = []
    for word in line.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and measure(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or [""]


def _break_words(line: str, width: float, measure: Callable[[str], float]) -> list[str]:
    """Split a line behind punctuation, and anywhere where that does not do."""
    parts = [""]
    for piece in re.findall(r"[^-_.,=(/]*[-_.,=(/]?", line):
        for portion in [piece] if measure(piece) <= width else piece:
            if parts[-1] and measure(parts[-1] + portion) > width:
                parts.append("")
            parts[-1] += portion
    return parts
