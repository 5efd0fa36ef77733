"""Lists of image files, with labels and truth in columns."""

from __future__ import annotations

import codecs
import csv
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from xcam.core.categories import fold_name
from xcam.data.files import Box, ImageFiles, Transform, make_transform
from xcam.data.pictures import list_endings
from xcam.errors import unknown
from xcam.sentences import escape_name, pluralize, quote_path

__all__ = ["listed", "read_lines"]

# Byte order marks; that of UTF-32 begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


def listed(
    path: str | Path,
    root: str | Path | None = None,
    size: int = 224,
    transform: Transform | None = None,
    categories: Sequence[str] = (),
    ignore: int | None = None,
    upright: bool = False,
    allow_missing: bool = False,
) -> ImageFiles:
    """Return the images of a list with a line each: `file label`, or `file label truth`.

    A label is the number of a class, from 0, or its name; names are numbered as `categories` are
    or, without these, in their sorted order, as the folders of `folder` are.

    Columns are separated by tabs, commas, semicolons or blanks: by the first of these with which a
    line begins with a file that exists. A name may be quoted. Truth is a mask file,
    or boxes as numbers x0 y0 x1 y1 in pixels of the image file, four a box. Either all lines have
    truth of the same kind, or none has. A first line without a number is a header, unless it begins
    with an image; empty lines are skipped. The id of an image is its file as the list names it, so
    that lines with the same file are about the same image.

    In a mask file the object is all that is not 0 or black: of a palette by its numbers if number 0
    is black, else by its colors; of a soft mask what is at least half white, and of a JPEG or
    another lossy format what is at least half as bright as the object. A mask that may be read in
    two ways is refused.

    Args:
        path: The list in UTF-8, or UTF-16 with its byte order mark. A name that is no UTF-8 is that
            of a file with the same bytes or, where there is none, Windows-1252.
        root: The folder that relative paths start from; None for the list's own folder.
        size: The side of the images in pixels; see `folder`.
        transform: Applied to an image and its truth instead; see `ImageFiles`.
        categories: The names of the classes; labels must be below their number. Empty if unknown.
        ignore: The value in mask files for unknown pixels, such as 255.
        upright: Whether boxes and masks were drawn on images turned upright by their EXIF tag, as
            browsers and many tools show them, rather than on the pixels as they are stored; see
            `ImageFiles`.
        allow_missing: Whether to keep lines whose image is missing, so that reading it fails, as of
            a damaged file; where all are missing, the list is refused.

    Raises:
        FileNotFoundError: There is no such list, or a file that it names is missing.
        ValueError: A line in another form; the message has its number.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no list at {quote_path(path)}")
    start = path.parent if root is None else Path(root)
    lines = list(_parse_lines(path, start, len(categories), allow_missing))
    if not lines:
        raise ValueError(f"{quote_path(path)} lists no images{_describe_header(path)}")
    if all(line.is_missing for line in lines):
        raise FileNotFoundError(f"{lines[0].place}: no picture at {quote_path(lines[0].file)}")
    labels, classes = _number_labels(lines, categories)
    for line in lines:
        if type(line.truth) is not type(lines[0].truth):
            raise ValueError(
                f"{line.place} has another kind of truth than line {lines[0].number}: all images "
                "need a mask, or all boxes, or none has truth"
            )
    return ImageFiles(
        paths=tuple(line.file for line in lines),
        ids=tuple(line.id for line in lines),
        labels=labels,
        truths=tuple(line.truth for line in lines if line.truth is not None),
        classes=classes,
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
    label: int | str
    truth: Path | tuple[Box, ...] | None
    is_missing: bool


def read_lines(path: Path) -> list[str]:
    """Read the lines of a list, whatever ends them; bytes that are no UTF-8 become surrogates.

    Raises:
        ValueError: It is no text, or in an encoding that it does not name.
    """
    content = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding, "surrogateescape" if "utf-8" in encoding else "strict")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{quote_path(path)} begins like {encoding} and is none: {error}"
        ) from error
    if "\0" in text:
        raise ValueError(
            f"{quote_path(path)} holds zero bytes, as UTF-16 without a byte order mark does, and "
            "files that are no text; save the list as UTF-8"
        )
    return re.split(r"\r\n|\r|\n", text)


def _parse_lines(path: Path, root: Path, categories: int, allow_missing: bool) -> Iterator[_Line]:
    first = True
    for number, text in enumerate(read_lines(path), start=1):
        if not text.strip():
            continue
        place = f"line {number} of {quote_path(path)}"
        columns, name = _split_columns(text, root)
        header = first and name is None and _is_header(columns, root)
        first = False
        if header:
            continue
        if len(columns) < 2 and name is not None:
            raise ValueError(
                f"{place} has a file and no label, got {quote_path(text)}; write the number of its "
                "class behind it, 'file,label'"
            )
        if len(columns) < 2:
            raise ValueError(
                f"{place} must be 'file label' or 'file label truth', got {quote_path(text)}"
            )
        hint = "" if name is not None else _explain_missing(columns, root)
        if name is None and (hint or not allow_missing):
            raise FileNotFoundError(f"{place}: no picture at {quote_path(root / columns[0])}{hint}")
        label = _parse_label(columns[1], categories, place)
        truth = _parse_truth(columns[2:], root, place)
        found = columns[0] if name is None else name
        yield _Line(place, number, root / found, escape_name(found), label, truth, name is None)


def _split_columns(text: str, root: Path) -> tuple[list[str], str | None]:
    """Return the columns of a line, split where that gives a picture, and the picture's name."""
    splits = [
        next(csv.reader([text], delimiter=separator, skipinitialspace=True))
        for separator in "\t,;"
        if separator in text
    ]
    blanks = next(csv.reader([text], delimiter=" ", skipinitialspace=True))
    splits += [list(filter(None, blanks)) or [""], text.split()]
    splits += [[text]]  # a name with blanks and no label, as some published lists hold
    splits = [[column.strip() for column in columns] for columns in splits]
    for columns in splits:
        name = _find_name(root, columns[0])
        if name is not None:
            return columns, name
    return next((columns for columns in splits if len(columns) > 1), splits[0]), None


def _find_name(root: Path, name: str) -> str | None:
    """Return the name of an existing file; one that is no UTF-8 may be in Windows-1252."""
    # Lists and files from macOS may compose letters and accents differently.
    spellings = [name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]
    if escape_name(name) != name:
        spellings += [name.encode("utf-8", "surrogateescape").decode("cp1252", "replace")]
    # Of `os`, since `Path.is_file` fails on names that are too long.
    found = (spelling for spelling in spellings if os.path.isfile(root / spelling))  # noqa: PTH113
    return next(found, None)


def _is_header(columns: Sequence[str], root: Path) -> bool:
    """Return whether columns are neither numbers nor files, and so the names of columns."""
    words = [_is_number(column) or _find_name(root, column) is not None for column in columns]
    has_picture = Path(columns[0]).suffix.lower() in list_endings()
    return len(columns) > 1 and not any(words) and not has_picture


def _describe_header(path: Path) -> str:
    line = next(filter(str.strip, read_lines(path)), None)
    if line is None:
        return ""
    return f": its only line, {quote_path(line)}, has no number and no file that exists"


def _explain_missing(columns: Sequence[str], root: Path) -> str:
    if any(_find_name(root, column) is not None for column in columns[1:2]):
        return f", but at {quote_path(root / columns[1])}: a line is 'file label', in this order"
    if escape_name(columns[0]) != columns[0]:
        return "; the list is not UTF-8, save it as UTF-8 if the file has another name"
    is_plain = Path(columns[0]).suffix.lower() in list_endings() or _is_number(columns[1])
    return "" if is_plain else "; if a name has blanks, separate columns by commas"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parse_label(text: str, categories: int, place: str) -> int | str:
    """Return the number of a class, or its name."""
    if not text:
        raise ValueError(
            f"{place}: the label must be the number of a class, from 0, or its name, and column 2 "
            "is empty: a separator too many?"
        )
    if not (text.isascii() and text.isdigit()):
        if _is_number(text):
            raise ValueError(
                f"{place}: the label must be the number of a class, from 0, or its name, got "
                f"{quote_path(text)}"
            )
        return text
    label = int(text)
    if categories and label >= categories:
        raise ValueError(
            f"{place}: label {label} is out of range for {pluralize(categories, 'class')}"
        )
    return label


def _number_labels(
    lines: Sequence[_Line], categories: Sequence[str]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the number of each line's class, and the names of the classes.

    Raises:
        ValueError: Numbers beside names, or a name that is none of the categories.
    """
    numbers = [line.label for line in lines if isinstance(line.label, int)]
    if len(numbers) == len(lines):
        return tuple(numbers), tuple(categories)
    named = next(line for line in lines if isinstance(line.label, str))
    if numbers:
        other = next(line for line in lines if isinstance(line.label, int))
        raise ValueError(
            f"{named.place}: the label is a name, {quote_path(str(named.label))}, and that of line "
            f"{other.number} a number; give all labels as names, or all as numbers"
        )
    names = [escape_name(str(line.label)) for line in lines]
    classes = tuple(categories) or tuple(sorted(set(names)))
    positions = {fold_name(name): number for number, name in enumerate(classes)}
    for line, name in zip(lines, names, strict=True):
        if fold_name(name) not in positions:
            raise unknown(f"class, as {line.place} has it,", name, classes)
    return tuple(positions[fold_name(name)] for name in names), classes


def _parse_truth(columns: list[str], root: Path, place: str) -> Path | tuple[Box, ...] | None:
    words = " ".join(columns).split()
    if not words:
        return None
    if not all(map(_is_number, words)):
        name = _find_name(root, " ".join(columns))
        if name is None:
            raise FileNotFoundError(
                f"{place}: the truth must be the file of a mask or numbers x0 y0 x1 y1, and there "
                f"is no file at {quote_path(root / ' '.join(columns))}"
            )
        return root / name
    values = [float(word) for word in words]
    boxes = tuple(tuple(values[start : start + 4]) for start in range(0, len(values), 4))
    for box in boxes:
        if len(box) != 4 or not (0 <= box[0] < box[2] and 0 <= box[1] < box[3]):
            raise ValueError(
                f"{place}: a box must be x0 y0 x1 y1 in pixels with x0 < x1 and y0 < y1, got "
                f"{quote_path(' '.join(words))}"
            )
    return boxes  # type: ignore[return-value]  # each of four, as was just seen
