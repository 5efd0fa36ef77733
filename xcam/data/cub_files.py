"""CUB-200-2011 as it is published: its splits, with boxes or segmentations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

from xcam.data.files import Box, ImageFiles, Transform, make_transform
from xcam.data.lists import read_lines
from xcam.data.splits import Splits
from xcam.errors import FileFormatError
from xcam.sentences import escape_name, pluralize, quote_path

__all__ = ["CubFiles", "CubTruth", "cub", "open_cub"]

CubTruth: TypeAlias = Literal["boxes", "masks"]
_FOLDER = "CUB_200_2011"


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
        return tuple(words[1] for words in self.read("images.txt", 2))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes, such as `001.Black_footed_Albatross`."""
        return tuple(words[1] for words in self.read("classes.txt", 2))

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """Return the class of each image."""
        return tuple(int(words[1]) - 1 for words in self._read_rows("image_class_labels.txt", 2))

    @cached_property
    def is_train(self) -> tuple[bool, ...]:
        """Return whether each image is one to train on."""
        return tuple(words[1] == "1" for words in self._read_rows("train_test_split.txt", 2))

    @cached_property
    def boxes(self) -> tuple[tuple[Box, ...], ...]:
        """Return the box of each image."""
        rows = [tuple(map(float, words[1:])) for words in self._read_rows("bounding_boxes.txt", 5)]
        return tuple(((x, y, x + width, y + height),) for x, y, width, height in rows)

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

    def read(self, name: str | Path, columns: int) -> list[list[str]]:
        """Return the words of each line of a file.

        Raises:
            FileNotFoundError: There is no such file.
            FileFormatError: A line has fewer words.
        """
        path = self.root / name
        if not path.is_file():
            raise FileNotFoundError(f"no file {quote_path(path)}: it is part of CUB-200-2011")
        lines = [line.split() for line in read_lines(path) if line.strip()]
        for number, words in enumerate(lines, start=1):
            if len(words) < columns:
                raise FileFormatError(
                    f"line {number} of {quote_path(path)} has {pluralize(len(words), 'word')}, not "
                    f"{columns}; unpack CUB-200-2011 again"
                )
        return lines

    def _read_rows(self, name: str, columns: int) -> list[list[str]]:
        """Read a file with a line an image."""
        lines = self.read(name, columns)
        if len(lines) != len(self.names):
            raise FileFormatError(
                f"{quote_path(self.root / name)} has {pluralize(len(lines), 'line')} for "
                f"{pluralize(len(self.names), 'image')}; unpack CUB-200-2011 again"
            )
        return lines


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
    paths = tuple(files.root / "images" / files.names[k] for k in chosen)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{pluralize(len(missing), 'picture')} of CUB-200-2011 missing, the first at "
            f"{quote_path(missing[0])}"
        )
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
