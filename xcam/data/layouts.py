"""Pictures on disk in the layouts that people train from: class folders, ImageNet, lists."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from xcam.core.instantiate import check_names
from xcam.data.files import ImageFiles, Transform, class_names, folder
from xcam.data.lists import listed
from xcam.data.splits import Splits

__all__ = ["LAYOUTS", "imagenet_val"]

Lists = Mapping[str, str | Path]


def _class_folders(root: Path, _: Lists) -> Splits:
    """`train/`, `val/` and perhaps `test/`, each with a folder a class."""
    found = {name: root / name for name in ("train", "val", "test") if (root / name).is_dir()}
    if not found:
        raise FileNotFoundError(
            f"no data in {str(root)!r}: there is neither train/ nor val/ nor test/, with a folder "
            "a class"
        )
    classes = _classes(*found.values())
    parts = {name: _numbered(folder(path), path, classes) for name, path in found.items()}
    if "train" in parts:
        _check_all_there(parts["train"], found["train"])
    held = parts.pop("val", None)
    if "test" in parts:
        return Splits(parts.get("train"), held, parts["test"], classes)
    return Splits(parts.get("train"), None, held, classes)


def _imagenet(root: Path, lists: Lists) -> Splits:
    """`train/` and `val/`; class folders, or pictures with a list of their labels."""
    check_names("ImageNet by lists", lists, ["train", "test"])
    places = {"train": root / "train", "test": root / "val"}
    found = {name: path for name, path in places.items() if path.is_dir()}
    if not found:
        raise FileNotFoundError(f"no ImageNet in {str(root)!r}: there is neither train/ nor val/")
    for name in lists.keys() - found.keys():
        raise FileNotFoundError(f"no folder {str(places[name])!r} for the files of {lists[name]!r}")
    folders = _classes(*found.values())
    classes = _imagenet_names() if len(folders) in (0, 1000) else folders
    parts = {
        name: _imagenet_part(path, lists.get(name), folders, classes)
        for name, path in found.items()
    }
    return Splits(parts.get("train"), None, parts.get("test"), classes)


def _imagenet_part(
    path: Path, labels: str | Path | None, folders: Sequence[str], classes: tuple[str, ...]
) -> ImageFiles:
    if labels is None:
        found = folder(path) if path.name == "train" else imagenet_val(path)
        return dataclasses.replace(_numbered(found, path, folders), classes=classes)
    if not Path(labels).is_file():
        raise FileNotFoundError(f"no list at {str(labels)!r}")
    if _columns(Path(labels)) > 1:
        return _plain(listed(labels, path, categories=classes))
    found = imagenet_val(path, labels)
    if max(found.labels) >= len(classes):
        raise ValueError(
            f"{str(labels)!r} has the label {max(found.labels)}, there are {len(classes)} classes"
        )
    return dataclasses.replace(found, classes=classes)


def _from_lists(root: Path, lists: Lists) -> Splits:
    """A list of `file label` or `file,label` a part; files lie in the root."""
    if not lists:
        raise ValueError("data by lists needs a list a part, such as lists={'train': 'train.txt'}")
    check_names("data by lists", lists, ["train", "validation", "test"])
    parts = {name: _plain(listed(path, root)) for name, path in lists.items()}
    return Splits(parts.get("train"), parts.get("validation"), parts.get("test"), ())


LAYOUTS = {"folder": _class_folders, "imagenet": _imagenet, "list": _from_lists}
"""By name, functions of the root and the lists to what lies there."""


def _classes(*parts: Path) -> tuple[str, ...]:
    """The folders of the first part that has some."""
    for part in parts:
        if names := class_names(part):
            return names
    return ()


def _numbered(found: ImageFiles, path: Path, classes: Sequence[str]) -> ImageFiles:
    """The labels as numbers of the classes of training, of which a part may lack some."""
    if not found.labels:
        raise ValueError(
            f"{str(path)!r} holds pictures without labels: put them into a folder a class; of "
            "ImageNet's, a list of their labels will do"
        )
    strange = [name for name in found.classes if name not in classes]
    if strange:
        raise ValueError(
            f"{str(path)!r} has the classes {', '.join(strange[:5])}, which are not among those of "
            f"training: {', '.join(classes[:5])}"
        )
    numbers = [classes.index(name) for name in found.classes]
    labels = tuple(numbers[label] for label in found.labels)
    return dataclasses.replace(found, labels=labels, classes=tuple(classes))


def _check_all_there(train: ImageFiles, path: Path) -> None:
    seen = set(train.labels)
    empty = [name for number, name in enumerate(train.classes) if number not in seen]
    if empty:
        raise ValueError(
            f"{str(path)!r} has no pictures of {', '.join(empty[:5])}: fill that folder, or "
            "remove it"
        )


def _plain(found: ImageFiles) -> ImageFiles:
    """Without the masks or boxes that a list may name: they are for scoring."""
    return dataclasses.replace(found, truths=())


def _columns(path: Path) -> int:
    """How many columns the first line of a list has that says something."""
    with path.open(encoding="utf-8-sig") as file:
        return next((len(re.split(r"[,\s]+", line.strip())) for line in file if line.strip()), 0)


def _imagenet_names() -> tuple[str, ...]:
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.DEFAULT.meta["categories"])


def imagenet_val(
    root: str | Path,
    labels: str | Path | None = None,
    size: int = 224,
    transform: Transform | None = None,
) -> ImageFiles:
    """ImageNet's validation images in the order of their numbers, whatever their layout.

    `root` holds either a folder a class (`n01440764/ILSVRC2012_val_00000293.JPEG`), or all images
    (`ILSVRC2012_val_00000001.JPEG`). Both give the same images at the same index, so that "the
    first 10,000" means one thing. Ids are the files' names.

    Args:
        root: The folder.
        labels: For images in one folder: a text file with a number from 0 a line, in the order of
            the images' names, where class 0 is n01440764, as in torchvision and timm. None for
            images without labels. The devkit's own numbers, 1 to 1000 in another order, are not
            these. For lines of `file label` there is `listed`.
        size: As of `folder`.
        transform: As of `folder`.

    Raises:
        FileNotFoundError: There is no such folder or file, or no picture in it.
        ValueError: Not one label an image, or labels out of range; labels for images that lie in
            folders of their classes.
    """
    found = folder(root, size, transform)
    order = sorted(range(len(found)), key=lambda index: found.paths[index].name)
    if labels is not None and found.labels:
        raise ValueError(f"{str(root)!r} has a folder a class, so there is no use for {labels!r}")
    own = tuple(found.labels[index] for index in order) if found.labels else ()
    return dataclasses.replace(
        found,
        paths=tuple(found.paths[index] for index in order),
        ids=tuple(found.paths[index].name for index in order),
        labels=own if labels is None else _numbers(Path(labels), len(found)),
    )


def _numbers(path: Path, images: int) -> tuple[int, ...]:
    if not path.is_file():
        raise FileNotFoundError(f"no list of labels at {str(path)!r}")
    words = path.read_text("utf-8-sig").split()
    for number, word in enumerate(words, start=1):
        if not (word.isascii() and word.isdigit()) or int(word) > 999:
            raise ValueError(
                f"line {number} of {str(path)!r} must be a class from 0 to 999, got {word!r}; the "
                "devkit's numbers, 1 to 1000, are in another order and must be mapped first"
            )
    if len(words) != images:
        raise ValueError(f"{str(path)!r} has {len(words)} labels for {images} images")
    return tuple(map(int, words))
