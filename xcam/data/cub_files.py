"""CUB-200-2011 as it is published: its splits, with boxes or segmentations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from xcam.data.files import Box, ImageFiles, Transform, make_transform
from xcam.data.lists import read_lines
from xcam.data.splits import Splits
from xcam.errors import FileFormatError
from xcam.sentences import escape_name, pluralize, quote_path

__all__ = ["CubFiles", "CubTruth", "cub", "open_cub", "parse_floats", "parse_int"]

T = TypeVar("T")

CubTruth: TypeAlias = Literal["boxes", "masks"]
_FOLDER = "CUB_200_2011"
_SHOWN = 60  # letters of a line that an error shows


class CubFiles:
    """The text files of CUB-200-2011, read when they are asked for; numbers count from 0.

    Args:
        root: The folder `CUB_200_2011`, or the one that holds it.

    Raises:
        FileNotFoundError: It is neither.
    """

    def __init__(self, root: str | Path) -> None:
        given = Path(root).expanduser()
        folders = (given, given / _FOLDER)
        found = next((path for path in folders if (path / "images.txt").is_file()), None)
        if found is None:
            raise FileNotFoundError(
                f"no CUB-200-2011 in {quote_path(given)}: there is neither images.txt nor "
                f"{_FOLDER}/images.txt"
            )
        self.root = found

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the image files, as paths in `images/`."""
        return tuple(self.read_numbered("images.txt", 2, itemgetter(0), "number and file"))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes, such as `001.Black_footed_Albatross`."""
        return tuple(self.read_numbered("classes.txt", 2, itemgetter(0), "number and name"))

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """Return the class of each image."""
        count = len(self.classes)

        def parse(words: list[str]) -> int:
            return parse_int(words[0], 1, count) - 1

        wanted = f"number and class, 1 to {count}"
        return tuple(self._read_rows("image_class_labels.txt", 2, parse, wanted))

    @cached_property
    def is_train(self) -> tuple[bool, ...]:
        """Return whether each image is one to train on."""

        def parse(words: list[str]) -> bool:
            return bool(parse_int(words[0], 0, 1))

        return tuple(self._read_rows("train_test_split.txt", 2, parse, "number and 0 or 1"))

    @cached_property
    def boxes(self) -> tuple[tuple[Box, ...], ...]:
        """Return the box of each image."""

        def parse(words: list[str]) -> tuple[Box, ...]:
            x, y, width, height = parse_floats(words)
            if min(width, height) <= 0:
                raise ValueError
            return ((x, y, x + width, y + height),)

        wanted = "number, x, y, and width and height above 0"
        return tuple(self._read_rows("bounding_boxes.txt", 5, parse, wanted))

    def find_pictures(self, images: Sequence[int]) -> tuple[Path, ...]:
        """Return the files of some images.

        Raises:
            FileNotFoundError: Some are missing.
        """
        paths = tuple(self.root / "images" / self.names[image] for image in images)
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{pluralize(len(missing), 'picture')} of CUB-200-2011 missing, the first at "
                f"{quote_path(missing[0])}"
            )
        return paths

    def find_segmentation(self, image: int) -> Path:
        """Return the file of an image's segmentation.

        Raises:
            FileNotFoundError: There is none: segmentations are an archive of their own.
        """
        name = Path(self.names[image]).with_suffix(".png")
        return self.find(Path("segmentations") / name, "the segmentations are another download")

    def find(self, name: str | Path, hint: str) -> Path:
        """Return a file in the folder or, as archives are unpacked, beside it.

        Raises:
            FileNotFoundError: It is in neither.
        """
        places = (self.root / name, self.root.parent / name)
        found = next((path for path in places if path.is_file()), None)
        if found is None:
            raise FileNotFoundError(f"no file {quote_path(places[0])}: {hint}")
        return found

    def read(
        self, name: str | Path, columns: int, parse: Callable[[list[str]], T], wanted: str
    ) -> list[T]:
        """Return what each line of a file says; empty lines are skipped.

        Args:
            name: The file, in the folder unless it is absolute.
            columns: How many words a line has at least.
            parse: Makes something of the words of a line, and raises ValueError if it cannot.
            wanted: What a line has to be, for the message.

        Raises:
            FileNotFoundError: There is no such file.
            FileFormatError: It is no text, or a line is not as it has to be.
        """
        path = self.root / name
        if not path.is_file():
            raise FileNotFoundError(f"no file {quote_path(path)}: it is part of CUB-200-2011")
        try:
            lines = read_lines(path)
        except ValueError as error:
            raise FileFormatError(str(error)) from error
        found = []
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if words and len(words) < columns:
                raise FileFormatError(
                    f"line {number} of {quote_path(path)} has {pluralize(len(words), 'word')}, not "
                    f"{columns}; unpack CUB-200-2011 again"
                )
            try:
                found += [parse(words)] if words else []
            except ValueError as error:
                shown = line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
                raise FileFormatError(
                    f"line {number} of {quote_path(path)} must be {wanted}, got {shown!r}; unpack "
                    "CUB-200-2011 again"
                ) from error
        return found

    def read_numbered(
        self, name: str | Path, columns: int, parse: Callable[[list[str]], T], wanted: str
    ) -> list[T]:
        """Read a file whose lines count from 1; see `read`. `parse` is not given the number."""
        numbers = itertools.count(1)

        def check(words: list[str]) -> T:
            if words[0] != str(next(numbers)):
                raise ValueError
            return parse(words[1:])

        return self.read(name, columns, check, f"{wanted}, counted from 1 without a gap")

    def _read_rows(
        self, name: str, columns: int, parse: Callable[[list[str]], T], wanted: str
    ) -> list[T]:
        """Read a file with a line an image."""
        rows = self.read_numbered(name, columns, parse, wanted)
        if len(rows) != len(self.names):
            raise FileFormatError(
                f"{quote_path(self.root / name)} has {pluralize(len(rows), 'line')} for "
                f"{pluralize(len(self.names), 'image')}; unpack CUB-200-2011 again"
            )
        return rows


def parse_int(word: str, least: int, most: int) -> int:
    """Return a whole number in a range.

    Raises:
        ValueError: It is none.
    """
    if not least <= int(word) <= most:
        raise ValueError
    return int(word)


def parse_floats(words: Sequence[str]) -> tuple[float, ...]:
    """Return finite numbers.

    Raises:
        ValueError: One is not.
    """
    found = tuple(map(float, words))
    if not all(map(math.isfinite, found)):
        raise ValueError
    return found


def cub(
    root: str | Path,
    split: Literal["train", "test"] = "test",
    truth: CubTruth | None = None,
    size: int = 224,
    transform: Transform | None = None,
) -> ImageFiles:
    """Return a split of CUB-200-2011, 5,994 images to train on or 5,794 to test on.

    Args:
        root: The folder `CUB_200_2011`, or the one that holds it.
        split: Which split.
        truth: `"boxes"`, or `"masks"`: the segmentations, a download of their own, in the folder or
            beside it, of which every value but 0 is the bird. None for neither.
        size: The side of the images in pixels; see `folder`.
        transform: Applied to an image and its truth instead; see `ImageFiles`.

    Raises:
        FileNotFoundError: A file of the data set is missing.
        FileFormatError: One is damaged.
        ValueError: There is no such split or truth.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    if truth not in ("boxes", "masks", None):
        raise ValueError(f"truth must be 'boxes', 'masks' or None, got {truth!r}")
    files = CubFiles(root)
    chosen = [k for k, is_train in enumerate(files.is_train) if is_train == (split == "train")]
    paths = files.find_pictures(chosen)
    truths: tuple[Path | tuple[Box, ...], ...] = ()
    if truth == "boxes":
        truths = tuple(files.boxes[k] for k in chosen)
    elif truth == "masks":
        truths = tuple(files.find_segmentation(k) for k in chosen)
    return ImageFiles(
        paths=paths,
        ids=tuple(escape_name(files.names[k]) for k in chosen),
        labels=tuple(files.labels[k] for k in chosen),
        truths=truths,
        classes=files.classes,
        transform=transform or make_transform(size),
    )


def open_cub(root: Path, _: Mapping[str, str | Path]) -> Splits:
    """Open the published splits."""
    train, test = cub(root, "train"), cub(root, "test")
    return Splits(train, None, test, train.classes)
