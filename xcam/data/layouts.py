"""Layouts of pictures on disk: class folders, ImageNet, lists."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from xcam.core.instantiate import check_names
from xcam.data.categories import list_missing, match_categories
from xcam.data.cub_files import open_cub
from xcam.data.files import ImageFiles, Transform, folder, list_class_folders, read_folder
from xcam.data.imagenet import list_imagenet_categories
from xcam.data.lists import listed, read_lines
from xcam.data.pascal import open_voc
from xcam.data.spelling import check_numbers, shorten
from xcam.data.splits import Splits
from xcam.data.wsol_metadata import open_wsol
from xcam.sentences import escape_name, pluralize

__all__ = ["LAYOUTS", "imagenet_val"]

Lists = Mapping[str, str | Path]


def _open_class_folders(root: Path, _: Lists) -> Splits:
    """Open `train/`, `val/` and, if there is one, `test/`, each with a folder a class."""
    folders = {name: root / name for name in ("train", "val", "test") if (root / name).is_dir()}
    if not folders:
        raise FileNotFoundError(
            f"no data in {str(root)!r}: there is neither train/ nor val/ nor test/, with a folder "
            "a class"
        )
    classes = _find_classes(*folders.values())
    splits = {name: _renumber(read_folder(path), path, classes) for name, path in folders.items()}
    if "train" in splits:
        _check_all_classes(splits["train"], folders["train"])
    val = splits.pop("val", None)
    if "test" in splits:
        return Splits(splits.get("train"), val, splits["test"], classes)
    return Splits(splits.get("train"), None, val, classes)


def _open_imagenet(root: Path, lists: Lists) -> Splits:
    """Open `train/` and `val/`: class folders, or pictures with a list of their labels."""
    check_names("ImageNet by lists", lists, ["train", "test"])
    paths = {"train": root / "train", "test": root / "val"}
    folders = {name: path for name, path in paths.items() if path.is_dir()}
    if not folders:
        raise FileNotFoundError(f"no ImageNet in {str(root)!r}: there is neither train/ nor val/")
    for name in lists.keys() - folders.keys():
        raise FileNotFoundError(f"no folder {str(paths[name])!r} for the files of {lists[name]!r}")
    names = _find_classes(*folders.values())
    classes = list_imagenet_categories()
    if names and (len(names) != len(classes) or match_categories(names, classes) is None):
        classes = names  # some of ImageNet's, or others
    splits = {
        name: _open_imagenet_split(path, lists.get(name), classes) for name, path in folders.items()
    }
    return Splits(splits.get("train"), None, splits.get("test"), classes)


def _open_imagenet_split(
    path: Path, labels: str | Path | None, classes: tuple[str, ...]
) -> ImageFiles:
    if labels is None:
        images = read_folder(path) if path.name == "train" else _sort_by_name(read_folder(path))
        return _renumber(images, path, classes)
    if not Path(labels).is_file():
        raise FileNotFoundError(f"no list at {str(labels)!r}")
    if _count_columns(Path(labels)) > 1:
        return _drop_truth(listed(labels, path, categories=classes))
    images = imagenet_val(path, labels)
    if max(images.labels) >= len(classes):
        raise ValueError(
            f"{str(labels)!r} has the label {max(images.labels)}, out of range for "
            f"{pluralize(len(classes), 'class')}"
        )
    return dataclasses.replace(images, classes=classes)


def _open_lists(root: Path, lists: Lists) -> Splits:
    """Open a list of `file label` or `file,label` for each split; files are in the root."""
    if not lists:
        raise ValueError(
            "data by lists needs a list for each split, such as lists={'train': 'train.txt'}"
        )
    check_names("data by lists", lists, ["train", "validation", "test"])
    splits = {name: _drop_truth(listed(path, root)) for name, path in lists.items()}
    classes = tuple(sorted({one for images in splits.values() for one in images.classes}))
    if classes:  # by name: a list may lack some, and all number them alike
        numbered = [name for name, images in splits.items() if not images.classes]
        if numbered:
            raise ValueError(
                f"the labels of {str(lists[numbered[0]])!r} are numbers, and those of another list "
                "are names; give all labels as names, or all as numbers"
            )
        splits = {
            name: _drop_truth(listed(path, root, categories=classes))
            for name, path in lists.items()
        }
    return Splits(splits.get("train"), splits.get("validation"), splits.get("test"), classes)


def _open_imagenet_v2(root: Path, _: Lists) -> Splits:
    """Open ImageNetV2: a folder a class by its number, in the root or in the archive's folder."""
    inside = sorted(path for path in root.glob("imagenetv2-*") if path.is_dir())
    if len(inside) > 1:
        raise ValueError(
            f"{str(root)!r} holds {len(inside)} variants of ImageNetV2, "
            f"{', '.join(folder.name for folder in inside)}; give the folder of one of them"
        )
    path = inside[0] if inside else root
    images = read_folder(path)
    numbers = [int(name) if name.isdigit() else -1 for name in images.classes]
    classes = list_imagenet_categories()
    if not numbers or min(numbers) < 0 or max(numbers) >= len(classes):
        raise FileNotFoundError(
            f"no ImageNetV2 in {str(root)!r}: its classes are folders named 0 to 999, there are "
            f"{shorten(images.classes) or 'none'}"
        )
    labels = tuple(numbers[label] for label in images.labels)
    return Splits(None, None, dataclasses.replace(images, labels=labels, classes=classes), classes)


LAYOUTS = {
    "cub": open_cub,
    "folder": _open_class_folders,
    "imagenet": _open_imagenet,
    "imagenetv2": _open_imagenet_v2,
    "list": _open_lists,
    "voc": open_voc,
    "wsol": open_wsol,
}
"""Functions (root, lists) -> Splits, by the name of the layout."""


def _find_classes(*folders: Path) -> tuple[str, ...]:
    """Return the class folders of the first split that has some."""
    for path in folders:
        if names := list_class_folders(path):
            check_numbers(names, f"the folders in {str(path)!r}")
            return names
    return ()


def _renumber(images: ImageFiles, path: Path, classes: Sequence[str]) -> ImageFiles:
    """Return the images with labels that number the training classes, some of which it may lack."""
    if not images.labels:
        raise ValueError(
            f"{str(path)!r} holds pictures without labels: put them into a folder a class; of "
            "ImageNet's, a list of their labels will do"
        )
    numbers = match_categories(images.classes, classes)
    if numbers is None:
        unknown = list_missing(images.classes, classes) or images.classes
        raise ValueError(
            f"{str(path)!r} has the classes {shorten(unknown)}, which are not among those of "
            f"training: {shorten(classes)}"
        )
    labels = tuple(numbers[label] for label in images.labels)
    return dataclasses.replace(images, labels=labels, classes=tuple(classes))


def _check_all_classes(train: ImageFiles, path: Path) -> None:
    present = set(train.labels)
    empty = [name for number, name in enumerate(train.classes) if number not in present]
    if empty:
        raise ValueError(
            f"{str(path)!r} has no pictures of {', '.join(empty[:5])}: fill that folder, or "
            "remove it"
        )


def _drop_truth(images: ImageFiles) -> ImageFiles:
    """Return the images without masks or boxes: a list may name them, but training has no use."""
    return dataclasses.replace(images, truths=())


def _count_columns(path: Path) -> int:
    """Return the number of columns in the first line that is not blank."""
    lines = map(str.strip, read_lines(path))
    return next((len(re.split(r"[,;\s]+", line)) for line in lines if line), 0)


def imagenet_val(
    root: str | Path,
    labels: str | Path | None = None,
    size: int = 224,
    transform: Transform | None = None,
) -> ImageFiles:
    """Return ImageNet's validation images in the order of their numbers, whatever their layout.

    `root` has either a folder a class (`n01440764/ILSVRC2012_val_00000293.JPEG`), or all images
    (`ILSVRC2012_val_00000001.JPEG`). Both give the same images at the same index, so that "the
    first 10,000" are the same. Ids are the files' names.

    Args:
        root: The folder of the images.
        labels: For images in one folder: a text file with a number from 0 a line, in the order of
            the images' names, where class 0 is n01440764, as in torchvision and timm. None for
            images without labels. These are not the devkit's numbers, 1 to 1000 in another order.
            For lines of `file label` use `listed`.
        size: The side of the images in pixels; see `folder`.
        transform: Applied to an image instead; see `folder`.

    Raises:
        FileNotFoundError: There is no such folder or file, or no picture in it.
        ValueError: Not one label an image, or labels out of range; labels for images that lie in
            folders of their classes.
    """
    images = _sort_by_name(folder(root, size, transform))
    if labels is None:
        return images
    if images.labels:
        raise ValueError(f"{str(root)!r} has a folder a class; leave out the labels {labels!r}")
    return dataclasses.replace(images, labels=_read_labels(Path(labels), len(images)))


def _sort_by_name(images: ImageFiles) -> ImageFiles:
    """Return the images in the order of their files' names, which are their ids."""
    order = sorted(range(len(images)), key=lambda index: images.paths[index].name)
    return dataclasses.replace(
        images,
        paths=tuple(images.paths[index] for index in order),
        ids=tuple(escape_name(images.paths[index].name) for index in order),
        labels=tuple(images.labels[index] for index in order) if images.labels else (),
    )


def _read_labels(path: Path, images: int) -> tuple[int, ...]:
    if not path.is_file():
        raise FileNotFoundError(f"no list of labels at {str(path)!r}")
    words = " ".join(read_lines(path)).split()
    for number, word in enumerate(words, start=1):
        if not (word.isascii() and word.isdigit()) or int(word) > 999:
            raise ValueError(
                f"line {number} of {str(path)!r} must be a class from 0 to 999, got {word!r}; the "
                "devkit's numbers, 1 to 1000, are in another order and must be mapped first"
            )
    if len(words) != images:
        raise ValueError(
            f"{str(path)!r} has {pluralize(len(words), 'label')} for {pluralize(images, 'image')}"
        )
    return tuple(map(int, words))
