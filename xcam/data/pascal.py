"""Pascal VOC, of which an image shows several of 20 classes, with boxes or masks of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import ParseError

import numpy as np
import torch
from torch import Tensor

from xcam.data.files import Box, ImageFiles, Transform, make_transform, strip_subclass
from xcam.data.splits import Splits
from xcam.errors import FileFormatError
from xcam.imaging.reading import open_picture, read_pixels
from xcam.sentences import pluralize, quote_path

__all__ = ["VOCFiles", "open_voc", "voc"]

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_VOID = 255  # in masks: the borders of objects, and what is left open
_YEARS = ("2007", "2008", "2009", "2010", "2011", "2012")
_Kind = Literal["boxes", "masks"]


@dataclass(frozen=True, eq=False)
class VOCFiles(ImageFiles):
    """Images of Pascal VOC: `(image, labels)` or `(image, labels, truth)`; see `ImageFiles`.

    Labels are (20,) bool. Boxes are (20, N, 4), of each class by itself, masks (20, H, W) uint8, 1
    on the class, 0 elsewhere and 255 where it is unknown.

    Attributes:
        places: Of each image, the class of each of its boxes, and which of that class's it is.
    """

    labels: tuple[Tensor, ...]  # type: ignore[assignment]  # several an image
    places: tuple[tuple[tuple[int, int], ...], ...] = ()

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Return the item; see `ImageFiles`."""
        index = range(len(self))[index]
        if self.truths and isinstance(self.truths[index], Path):
            return self._read_masks(index)
        image, labels, *boxes = super().__getitem__(index)
        if not boxes:
            return image, labels
        count = max((number + 1 for places in self.places for _, number in places), default=1)
        by_class = torch.full((len(CLASSES), count, 4), torch.nan)
        for box, place in zip(boxes[0], self.places[index], strict=False):
            by_class[place] = box
        return image, labels, by_class

    def _read_masks(self, index: int) -> tuple[Any, ...]:
        from torchvision import tv_tensors

        image = tv_tensors.Image(read_pixels(self.paths[index]))
        path = Path(str(self.truths[index]))
        with open_picture(path) as picture:
            numbers = torch.from_numpy(np.array(picture))
        if numbers.shape != image.shape[1:]:
            raise ValueError(
                f"the mask {quote_path(path)} is {tuple(numbers.shape)}, and its image "
                f"{tuple(image.shape[1:])}; masks of VOC hold a number a pixel"
            )
        image, numbers = self.transform(image, tv_tensors.Mask(numbers))
        numbers = strip_subclass(numbers)
        masks = (numbers == torch.arange(1, len(CLASSES) + 1)[:, None, None]).to(torch.uint8)
        masks[:, numbers == _VOID] = _VOID
        return strip_subclass(image), self.labels[index], masks


def voc(
    root: str | Path,
    image_set: str = "val",
    year: str = "2012",
    truth: _Kind | None = None,
    *,
    difficult: bool = False,
    size: int = 224,
    transform: Transform | None = None,
) -> VOCFiles:
    """Return images of Pascal VOC with the classes that each shows, as torchvision finds them.

    Args:
        root: The folder that holds `VOCdevkit/VOC2012/` or that of another year, as for
            `torchvision.datasets.VOCDetection`.
        image_set: Its list of images: `"train"`, `"val"`, `"trainval"`, or of 2007 `"test"`.
        year: From `"2007"` to `"2012"`.
        truth: `"boxes"` or `"masks"` of each class, for metrics that need them; masks are of the
            images that the set for segmentation lists.
        difficult: Whether objects that are marked as difficult count: as labels, and their boxes.
            Otherwise a class of which all objects are difficult is not shown, as if it were not
            there; VOC's own evaluation leaves such images out for that class.
        size: The side of the images in pixels; see `folder`.
        transform: Applied to an image, or an image and its truth, instead; see `ImageFiles`.

    Raises:
        FileNotFoundError: The folder, a list, an image or an annotation is missing.
        FileFormatError: An annotation is damaged, or names a class that VOC does not have.
        ValueError: No such year or list.
    """
    from torchvision import datasets

    if truth not in (None, "boxes", "masks"):
        raise ValueError(f"truth must be 'boxes', 'masks' or None, got {truth!r}")
    _check_set(image_set, year)
    kind = datasets.VOCSegmentation if truth == "masks" else datasets.VOCDetection
    try:
        found = kind(str(root), year=year, image_set=image_set)
    except (RuntimeError, OSError) as error:
        folder = Path(root) / "VOCdevkit" / f"VOC{year}"
        lists = folder / "ImageSets" / ("Segmentation" if truth == "masks" else "Main")
        missing = lists / f"{image_set}.txt" if folder.is_dir() else folder
        raise FileNotFoundError(
            f"no VOC of {year} at {quote_path(missing)}{_explain_root(Path(root))}"
        ) from error
    paths = tuple(map(Path, found.images))
    for path in (*paths, *(map(Path, found.targets) if truth == "masks" else ())):
        if not path.is_file():
            raise FileNotFoundError(f"no picture at {quote_path(path)}, which VOC's list names")
    objects = [[*_read_objects(path, difficult)] for path in paths]
    labels = torch.zeros(len(paths), len(CLASSES), dtype=torch.bool)
    for row, own in enumerate(objects):
        labels[row, [k for k, _ in own]] = True
    truths: tuple[Path | tuple[Box, ...], ...] = ()
    if truth == "masks":
        truths = tuple(map(Path, found.targets))
    elif truth == "boxes":
        truths = tuple(tuple(box for _, box in own) for own in objects)
    return VOCFiles(
        paths=paths,
        ids=tuple(path.stem for path in paths),
        labels=tuple(labels),
        truths=truths,
        classes=CLASSES,
        transform=transform or make_transform(size),
        places=tuple(tuple(_number(own)) for own in objects),
    )


def _check_set(image_set: str, year: str) -> None:
    """Refuse a year or list that torchvision does not know.

    Raises:
        ValueError: No such year or list.
    """
    if year not in _YEARS:
        raise ValueError(f"year must be a string, one of {', '.join(_YEARS)}, got {year!r}")
    if image_set not in ("train", "val", "trainval", *(["test"] if year == "2007" else [])):
        raise ValueError(
            "image_set must be 'train', 'val' or 'trainval', or of 2007 'test', got "
            f"{image_set!r} of {year}; of a list of one class, or of images without labels, take "
            "xcam.data.listed"
        )


def _explain_root(root: Path) -> str:
    """Return what to give instead of a folder within the one that holds `VOCdevkit/`."""
    found = next((path for path in (root, *root.parents) if path.name == "VOCdevkit"), None)
    return "" if found is None else f"; root is the folder around it, {quote_path(found.parent)}"


def open_voc(root: Path, _: Mapping[str, str | Path]) -> Splits:
    """Open the only year of Pascal VOC in `VOCdevkit/`: its lists train and val, or with test."""
    years = _find_years(root)
    if len(years) != 1:
        found = f"{pluralize(len(years), 'year')}: {', '.join(years)}" if years else "none"
        raise FileNotFoundError(
            f"{str(root)!r} must hold VOCdevkit/ with one year of VOC in it, such as VOC2012/, and "
            f"holds {found}"
        )
    (year,) = years
    is_whole = (root / "VOCdevkit" / f"VOC{year}" / "ImageSets" / "Main" / "test.txt").is_file()
    train, test = ("trainval", "test") if is_whole else ("train", "val")
    return Splits(voc(root, train, year), None, voc(root, test, year), CLASSES)


def _find_years(root: Path) -> list[str]:
    """Return the years of VOC in a folder, ascending."""
    names = (path.name for path in (root / "VOCdevkit").glob("VOC20*") if path.is_dir())
    return sorted(name[3:] for name in names if re.fullmatch(r"VOC20\d\d", name))


def _read_objects(image: Path, difficult: bool) -> Iterator[tuple[int, Box]]:
    """Yield class and box of each object of an image, from its annotation.

    A box of VOC has its last pixels in it and counts from 1; ours is x1 and y1 exclusive, from 0.

    Raises:
        FileNotFoundError: There is no annotation.
        FileFormatError: It is damaged, or names another class.
    """
    from torchvision.datasets.voc import ET_parse, VOCDetection

    path = image.parent.parent / "Annotations" / f"{image.stem}.xml"
    if not path.is_file():
        raise FileNotFoundError(f"no annotation at {quote_path(path)}")
    try:
        known = VOCDetection.parse_voc_xml(ET_parse(str(path)).getroot())
        for one in known["annotation"]["object"]:
            number = CLASSES.index(one["name"])
            x0, y0, x1, y1 = (float(one["bndbox"][k]) for k in ("xmin", "ymin", "xmax", "ymax"))
            if difficult or one.get("difficult", "0") != "1":
                yield number, (x0 - 1, y0 - 1, x1, y1)
    except (KeyError, ParseError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"{quote_path(path)} is no annotation of VOC's 20 classes ({error}); repair it, or "
            "leave its image out of the list"
        ) from error


def _number(objects: list[tuple[int, Box]]) -> Iterator[tuple[int, int]]:
    """Yield each object's class, and which object of that class it is."""
    counts = [0] * len(CLASSES)
    for number, _ in objects:
        yield number, counts[number]
        counts[number] += 1
