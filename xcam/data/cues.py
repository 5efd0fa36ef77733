"""Where two classes of CUB-200-2011 differ: pairs of classes, and pseudo masks of their cues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from xcam.data.categories import list_missing, match_categories
from xcam.data.cub_files import CubFiles, parse_floats, parse_int
from xcam.data.spelling import shorten
from xcam.data.transforms import make_pipeline, make_size_steps
from xcam.errors import FileFormatError
from xcam.imaging import parse_size, read_pixels
from xcam.imaging.reading import open_picture
from xcam.sentences import pluralize, quote_path

__all__ = ["CuePair", "cub_cues"]

# Words in the names of attributes, and CUB's numbers of the points, of each part.
_PARTS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "head": (
        ("bill", "crown", "eye", "forehead", "head", "nape", "throat"),
        (2, 5, 6, 7, 10, 11, 15),
    ),
    "back": (("back",), (1,)),
    "belly": (("belly",), (3,)),
    "breast": (("breast",), (4,)),
    "tail": (("tail",), (14,)),
    "leg": (("leg",), (8, 12)),
    "wing": (("wing",), (9, 13)),
}
_ATTRIBUTES = "class_attribute_labels_continuous.txt"
_POINTS = 15  # of a bird
_PRESENT = 50  # percent of the images of a class that have an attribute

Points = dict[int, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class CuePair(Dataset[tuple[Tensor, int, Tensor]]):
    """The test images of two classes: `(image, label, mask)`, the mask of where they differ.

    A mask, (H, W) uint8, is 1 at the pixels of the bird whose nearest point belongs to one of the
    parts. Images in which no such part is visible are left out.

    Attributes:
        classes: The numbers of the two classes.
        names: Their names.
        parts: The parts that differ: of head, back, belly, breast, tail, leg and wing.
        images: The numbers of the images in the data set, from 0.
        labels: The number of the class of each.
        size: (H, W) that images are resized to, whatever their proportions.
        source: Where images, points and segmentations are read.
    """

    classes: tuple[int, int]
    names: tuple[str, str]
    parts: tuple[str, ...]
    images: tuple[int, ...]
    labels: tuple[int, ...]
    size: tuple[int, int]
    source: _Source

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        """Return an image (3, H, W) float32 in [0, 1], its label and its mask."""
        image = self.images[index]
        pixels = read_pixels(self.source.files.root / "images" / self.source.files.names[image])
        mask = self.source.make_mask(image, tuple(pixels.shape[1:]), self.parts, self.size)
        shown = make_pipeline(make_size_steps(self.size, None)[1])(pixels)
        return shown, self.labels[index], mask


def cub_cues(
    root: str | Path,
    differing: Sequence[int] = (1, 2, 3),
    size: int | tuple[int, int] = 224,
    categories: Sequence[str] = (),
) -> list[CuePair]:
    """Return the pairs of classes of CUB-200-2011 that differ in a few parts of the bird.

    As Kim et al. (2021, CALM, arXiv:2106.07861) have them: an attribute is one of a class if at
    least 50 % of its images show it; the parts that the names of the differing attributes speak of
    are those that differ. Of all 200 classes, 31 pairs differ in one part, 64 in two and 96 in
    three.

    Args:
        root: The folder `CUB_200_2011`, or the one that holds it, with `attributes.txt` and
            `segmentations/` in either.
        differing: In how many parts, numbers from 1 to 7.
        size: (H, W) that images are resized to, or one number for a square.
        categories: The names of a model's outputs, by which the classes are numbered then; empty
            for CUB's own order.

    Returns:
        The pairs, those that differ in fewer parts first, but for pairs of which no image shows
        such a part.

    Raises:
        FileNotFoundError: A file of the data set is missing.
        FileFormatError: One is damaged.
        TypeError: `differing` holds no numbers.
        ValueError: A class has none of the categories as its name, or `differing` no number of
            parts.
    """
    _check_differing(differing)
    source = _Source(CubFiles(root))
    files, sides = source.files, parse_size(size)
    numbers = (
        match_categories(files.classes, categories) if categories else [*range(len(files.classes))]
    )
    if numbers is None:
        lacking = list_missing(files.classes, categories) or files.classes
        raise ValueError(
            f"the model has no outputs named {shorten(lacking)}, as CUB's classes are; train it "
            "on CUB-200-2011, or set its categories"
        )
    by_class: dict[int, list[int]] = {k: [] for k in range(len(files.classes))}
    for image, (label, is_train) in enumerate(zip(files.labels, files.is_train, strict=True)):
        if not is_train:
            by_class[label].append(image)
    pairs = []
    for first in range(len(files.classes)):
        for second in range(first + 1, len(files.classes)):
            parts = source.find_parts(first, second)
            if len(parts) in differing:
                images = (*by_class[first], *by_class[second])
                seen = tuple(image for image in images if source.shows(image, parts))
                names = (files.classes[first], files.classes[second])
                classes = (numbers[first], numbers[second])
                labels = tuple(numbers[files.labels[image]] for image in seen)
                if seen:
                    pairs.append(CuePair(classes, names, parts, seen, labels, sides, source))
    shown = sorted({image for pair in pairs for image in pair.images})
    files.find_pictures(shown)
    for image in shown:
        files.find_segmentation(image)
    return sorted(pairs, key=lambda pair: len(pair.parts))


def _check_differing(differing: object) -> None:
    wanted = f"differing must be numbers of parts from 1 to {len(_PARTS)}, such as (1, 2, 3)"
    if isinstance(differing, str) or not isinstance(differing, Sequence | range | set):
        raise TypeError(f"{wanted}, got {differing!r}")
    if not differing or any(number not in range(1, len(_PARTS) + 1) for number in differing):
        raise ValueError(f"{wanted}, got {differing!r}")


@dataclass(frozen=True, eq=False)
class _Source:
    """What pairs and masks are made from."""

    files: CubFiles

    @cached_property
    def has_attribute(self) -> NDArray[np.bool_]:
        """Return whether each class has each attribute, (classes, attributes)."""
        name = Path("attributes") / _ATTRIBUTES
        lines = self.files.read(name, 1, parse_floats, "numbers")
        if len(lines) != len(self.files.classes) or len({len(values) for values in lines}) > 1:
            raise FileFormatError(
                f"{quote_path(self.files.root / 'attributes' / _ATTRIBUTES)} must have a line of "
                f"equally many numbers for each of {pluralize(len(self.files.classes), 'class')}; "
                "unpack CUB-200-2011 again"
            )
        return np.array(lines) >= _PRESENT

    @cached_property
    def parts_of_attribute(self) -> list[set[str]]:
        """Return the parts that the name of each attribute speaks of."""
        hint = "it comes with CUB-200-2011, beside its folder"
        inside = self.files.root / "attributes" / "attributes.txt"
        path = inside if inside.is_file() else self.files.find("attributes.txt", hint)

        def parse(words: list[str]) -> set[str]:
            name = words[0]
            if not name.isascii():
                raise ValueError
            return {part for part, (known, _) in _PARTS.items() if any(k in name for k in known)}

        found = self.files.read_numbered(path.absolute(), 2, parse, "number and ASCII name")
        if len(found) != self.has_attribute.shape[1]:
            raise FileFormatError(
                f"{quote_path(path)} names {pluralize(len(found), 'attribute')}, and "
                f"{_ATTRIBUTES} has {self.has_attribute.shape[1]}; unpack CUB-200-2011 again"
            )
        return found

    @cached_property
    def points(self) -> list[Points]:
        """Return the visible points of each image, (x, y) in its pixels, by CUB's numbers."""
        found: list[Points] = [{} for _ in self.files.names]

        def parse(words: list[str]) -> None:
            image, part = parse_int(words[0], 1, len(found)), parse_int(words[1], 1, _POINTS)
            x, y = parse_floats(words[2:4])
            if parse_int(words[4], 0, 1):
                found[image - 1][part] = (x, y)

        wanted = f"image, 1 to {len(found)}, point, 1 to {_POINTS}, x, y, and 0 or 1"
        self.files.read(Path("parts") / "part_locs.txt", 5, parse, wanted)
        return found

    def find_parts(self, first: int, second: int) -> tuple[str, ...]:
        """Return the parts in which two classes differ."""
        differs = self.has_attribute[first] != self.has_attribute[second]
        parts = set().union(*(self.parts_of_attribute[k] for k in np.flatnonzero(differs)))
        return tuple(part for part in _PARTS if part in parts)

    def shows(self, image: int, parts: Sequence[str]) -> bool:
        """Return whether a point of one of the parts is visible."""
        return any(point in self.points[image] for part in parts for point in _PARTS[part][1])

    def make_mask(
        self, image: int, pixels: tuple[int, ...], parts: Sequence[str], size: tuple[int, int]
    ) -> Tensor:
        """Return the mask (H, W) uint8 of some parts of an image of a size, (h, w), in pixels."""
        scale = np.array([size[1] / pixels[1], size[0] / pixels[0]])
        owners, places = [], []
        for part, (_, numbers) in _PARTS.items():
            visible = [self.points[image][k] for k in numbers if k in self.points[image]]
            scaled = np.array(visible).reshape(-1, 2) * scale
            if part == "head" and visible:  # its points count as one
                scaled = scaled.mean(0, keepdims=True)
            owners += [part] * len(scaled)
            places.append(scaled)
        points = np.concatenate(places).astype(int)
        rows, columns = np.indices(size)
        distances = (columns[..., None] - points[:, 0]) ** 2 + (rows[..., None] - points[:, 1]) ** 2
        is_near = np.isin(owners, parts)[distances.argmin(2)]
        with open_picture(self.files.find_segmentation(image), "segmentation") as file:
            bird = np.array(file.convert("L").resize(size[::-1])) > 0
        return torch.from_numpy((is_near & bird).astype(np.uint8))
