"""The pictures that `explain` is given: files, folders, patterns, or a list with labels."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xcam.sentences import quote_path

if TYPE_CHECKING:
    from xcam.data.files import ImageFiles

__all__ = ["Photo", "check_photos", "find_photos", "list_labeled", "make_outputs"]

_LISTS = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class Photo:
    """A picture to explain.

    Attributes:
        path: Its file.
        place: Where its results go in the output folder, its own name last.
        label: The number of its class in the data; None if that is unknown.
    """

    path: Path
    place: Path
    label: int | None = None


def find_photos(words: Sequence[str]) -> list[Photo]:
    """Find the pictures that files, folders and patterns name, each once.

    Subfolders of a folder, and of the part of a pattern before its first `*`, are kept.

    Raises:
        FileNotFoundError: A word names nothing.
    """
    files = [Path(word) for word in words if Path(word).is_file()]
    shared = _find_shared_folder(files)
    found: dict[str, Photo] = {}
    for word in words:
        for photo in _expand(word, shared):
            found.setdefault(os.path.abspath(photo.path), photo)  # noqa: PTH100 - keeps links
    return list(found.values())


def list_labeled(words: Sequence[str], root: Path | None) -> ImageFiles:
    """Return the pictures with labels of the one folder of classes, or list, that is given.

    Raises:
        ValueError: It is neither.
    """
    from xcam import data

    path = Path(words[0])
    if len(words) != 1 or not (path.is_dir() or is_list(words)):
        raise ValueError(
            "labels come from one folder with a folder for each class, or from one list with a "
            f"file and a label in each line, got {' '.join(words)}"
        )
    files = data.listed(path, root) if path.is_file() else data.folder(path)
    if not files.labels:
        raise ValueError(
            f"{quote_path(path)} has no folders of classes, so that nothing is labeled"
        )
    return files


def is_list(words: Sequence[str]) -> bool:
    """Return whether the one word given is the file of a list."""
    return len(words) == 1 and Path(words[0]).suffix.lower() in _LISTS


def check_photos(photos: Sequence[Photo]) -> tuple[list[Photo], list[str]]:
    """Open each file; return the pictures, and why each of the others is none.

    Raises:
        ValueError: There are no pictures.
    """
    from xcam.imaging.reading import open_picture

    readable, failures = [], []
    for photo in photos:
        try:
            with open_picture(photo.path):
                readable.append(photo)
        except (OSError, ValueError) as error:
            failures.append(str(error))
    if not readable:
        more = f"; nor can {len(failures) - 1} more" if len(failures) > 1 else ""
        raise ValueError(f"{failures[0]}{more}" if failures else "there are no pictures to explain")
    return readable, failures


def make_outputs(
    photos: Sequence[Photo], folder: Path, suffixes: Sequence[str]
) -> list[list[Path]]:
    """Return the files of each picture's overlays, `PLACE/NAME.SUFFIX.png`, all of them different.

    Pictures that differ in their endings alone, such as a.jpg and a.png, keep these.

    Raises:
        ValueError: Two would be the same.
    """
    stems = [photo.place.with_suffix("") for photo in photos]
    stems = [
        photo.place if stems.count(stem) > 1 else stem
        for photo, stem in zip(photos, stems, strict=True)
    ]
    paths = [
        [folder / stem.with_name(f"{stem.name}.{suffix}.png") for suffix in suffixes]
        for stem in stems
    ]
    seen: set[Path] = set()
    for path in (path for several in paths for path in several):
        if path in seen:
            raise ValueError(
                f"two overlays would be written to {str(path)!r}: rename a picture, or call twice"
            )
        seen.add(path)
    return paths


def _expand(word: str, shared: Path | None) -> Iterator[Photo]:
    """Yield the pictures that a word stands for, in order."""
    path = Path(word)
    if path.is_dir():
        from xcam.data.pictures import Search, find_class_folders

        search = Search(path)
        inside = [search.find_below(folder) for folder in find_class_folders(path).values()]
        for found in [*search.find_in(path), *itertools.chain(*inside)]:
            yield Photo(found, found.relative_to(path))
        search.warn_of_left_out()
    elif path.exists() or not glob.has_magic(word):
        if not path.exists():
            raise FileNotFoundError(f"no picture at {quote_path(path)}")
        yield Photo(path, Path(path.name) if shared is None else _relate(path, shared))
    else:
        yield from _match(word)


def _match(pattern: str) -> Iterator[Photo]:
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:fixed])
    matches = sorted(path for path in base.glob(str(Path(*parts[fixed:]))) if path.is_file())
    if not matches:
        raise FileNotFoundError(f"no picture matches {quote_path(pattern)}")
    for path in matches:
        yield Photo(path, path.relative_to(base))


def _find_shared_folder(files: Sequence[Path]) -> Path | None:
    """Return the folder that holds all files, where their names alone are not different."""
    if len({path.name for path in files}) == len(files):
        return None
    return Path(os.path.commonpath([path.absolute().parent for path in files]))


def _relate(path: Path, folder: Path) -> Path:
    return path.absolute().relative_to(folder)
