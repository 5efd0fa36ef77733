"""Lists of image files, with labels and truth in columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from xcam.data.files import Box, ImageFiles, Transform, make_transform

__all__ = ["listed"]


def listed(
    path: str | Path,
    root: str | Path | None = None,
    size: int = 224,
    transform: Transform | None = None,
    categories: Sequence[str] = (),
    ignore: int | None = None,
    upright: bool = False,
) -> ImageFiles:
    """Return the images of a list with a line each: `file label`, or `file label truth`.

    Columns are separated by commas, if the line has any, else by white space. Truth is a mask file,
    or boxes as numbers x0 y0 x1 y1 in pixels of the image file, four a box. Either all lines have
    truth of the same kind, or none has. A first line without a number is a header, unless it begins
    with an image; empty lines are skipped. The id of an image is its file as the list names it, so
    that lines with the same file are about the same image.

    In a mask file the object is all that is not 0 or black: of a palette by its numbers if number 0
    is black, else by its colors; of a soft mask, and of a JPEG or another lossy format, what is at
    least half white. A mask that may be read in two ways is refused.

    Args:
        path: The list, UTF-8.
        root: The folder that relative paths start from; None for the list's own folder.
        size: The side of the images in pixels; see `folder`.
        transform: Applied to an image and its truth instead; see `ImageFiles`.
        categories: The names of the classes; labels must be below their number. Empty if unknown.
        ignore: The value in mask files for unknown pixels, such as 255.
        upright: Whether boxes and masks were drawn on images turned upright by their EXIF tag, as
            browsers and many tools show them, rather than on the pixels as they are stored; see
            `ImageFiles`.

    Raises:
        FileNotFoundError: There is no such list, or a file that it names is missing.
        ValueError: A line in another form; the message has its number.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no list at {str(path)!r}")
    lines = list(_parse_lines(path, path.parent if root is None else Path(root), len(categories)))
    if not lines:
        raise ValueError(f"{str(path)!r} lists no images")
    for line in lines:
        if type(line.truth) is not type(lines[0].truth):
            raise ValueError(
                f"{line.place} has another kind of truth than line {lines[0].number}: all images "
                "need a mask, or all boxes, or none has truth"
            )
    return ImageFiles(
        paths=tuple(line.file for line in lines),
        ids=tuple(line.id for line in lines),
        labels=tuple(line.label for line in lines),
        truths=tuple(line.truth for line in lines if line.truth is not None),
        classes=tuple(categories),
        transform=transform or make_transform(size),
        ignore=ignore,
        upright=upright,
    )


@dataclass(frozen=True)
class _Line:
    """A parsed line of a list."""

    place: str
    number: int
    file: Path
    id: str
    label: int
    truth: Path | tuple[Box, ...] | None


def _parse_lines(path: Path, root: Path, categories: int) -> Iterator[_Line]:
    first = True
    for number, text in enumerate(path.read_text("utf-8-sig").splitlines(), start=1):
        if not text.strip():
            continue
        place = f"line {number} of {str(path)!r}"
        columns = _split_columns(text)
        header = first and len(columns) > 1 and not any(map(_is_number, columns[1:]))
        first = False
        if header and not (root / columns[0]).is_file():
            continue
        if len(columns) < 2:
            raise ValueError(f"{place} must be 'file label' or 'file label truth', got {text!r}")
        file = root / columns[0]
        if not file.is_file():
            blank = (
                ""
                if _is_number(columns[1])
                else "; if a name has blanks, separate columns by commas"
            )
            raise FileNotFoundError(f"{place}: no picture at {str(file)!r}{blank}")
        label = _parse_label(columns[1], categories, place)
        yield _Line(place, number, file, columns[0], label, _parse_truth(columns[2:], root, place))


def _split_columns(text: str) -> list[str]:
    if "," not in text:
        return text.split()
    (columns,) = csv.reader([text], skipinitialspace=True)
    return [column.strip() for column in columns]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parse_label(text: str, categories: int, place: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{place}: the label must be a number of a class, from 0, got {text!r}")
    label = int(text)
    if categories and label >= categories:
        raise ValueError(f"{place}: label {label} is out of range, there are {categories} classes")
    return label


def _parse_truth(columns: list[str], root: Path, place: str) -> Path | tuple[Box, ...] | None:
    words = " ".join(columns).split()
    if not words:
        return None
    if not all(map(_is_number, words)):
        file = root / " ".join(columns)
        if not file.is_file():
            raise FileNotFoundError(
                f"{place}: the truth must be the file of a mask or numbers x0 y0 x1 y1, and there "
                f"is no file at {str(file)!r}"
            )
        return file
    values = [float(word) for word in words]
    boxes = tuple(tuple(values[start : start + 4]) for start in range(0, len(values), 4))
    for box in boxes:
        if len(box) != 4 or not (0 <= box[0] < box[2] and 0 <= box[1] < box[3]):
            raise ValueError(
                f"{place}: a box must be x0 y0 x1 y1 in pixels with x0 < x1 and y0 < y1, got "
                f"{' '.join(words)!r}"
            )
    return boxes  # type: ignore[return-value]  # each of four, as was just seen
