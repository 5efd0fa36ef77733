"""Data sets of image files; `folder` finds the files by class."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset

from xcam.data.instances import Instances, read_instances
from xcam.data.masks import read_mask
from xcam.data.pictures import Search, find_class_folders
from xcam.data.spelling import check_numbers, parse_numbers
from xcam.imaging.reading import read_oriented, swaps_sides, turn_boxes
from xcam.sentences import escape_name, quote_path

__all__ = [
    "Box",
    "ImageFiles",
    "Transform",
    "folder",
    "list_class_folders",
    "make_transform",
    "read_folder",
    "strip_subclass",
]

Box: TypeAlias = tuple[float, float, float, float]
Transform: TypeAlias = Callable[..., Any]
"""Maps an image, or an image and its truth, to what the model takes."""


@dataclass(frozen=True, eq=False)
class ImageFiles(Dataset[tuple[Any, ...]]):
    """A data set of image files: `(image,)`, `(image, label)` or `(image, label, truth)`.

    An image is (3, H, W) float32 in [0, 1] unless `transform` returns something else. A truth is
    a mask, (H, W) uint8 with 1 on the object, 0 elsewhere and 255 where it is unknown, or boxes,
    (N, 4) float32 x0, y0, x1, y1 in pixels, x1 and y1 exclusive, padded with rows of NaN to the
    largest number of boxes of an image. Boxes are clipped to the crop of the image; a box outside
    of it is a row of NaN, too.

    An image with an EXIF orientation tag is turned upright, and its boxes and mask with it: they
    are read as of the pixels as they are stored, unless `upright` says otherwise. A mask whose file
    has such a tag is turned by its own, and one that fits the image just one way is read so.

    Attributes:
        paths: The image files.
        ids: The name of each image.
        labels: The class of each image, from 0; empty if unlabeled.
        truths: The mask file, a mask file an object, or the boxes, in pixels of the image file, of
            each image; empty for none. How mask files are read is told in `listed`.
        classes: The names of the classes, as far as they are known.
        transform: Called with a uint8 image and, if there is one, its truth, as
            `torchvision.tv_tensors`, so that a transform of `torchvision.transforms.v2` moves both.
        ignore: The value in mask files for unknown pixels; all other values but 0 are the object.
        upright: Whether boxes and masks are those of images turned upright by their EXIF tag.
    """

    paths: tuple[Path, ...]
    ids: tuple[str, ...]
    labels: tuple[int, ...]
    truths: tuple[Path | tuple[Box, ...] | Instances, ...]
    classes: tuple[str, ...]
    transform: Transform
    ignore: int | None = None
    upright: bool = False

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Return the item; its files are read anew each time.

        Raises:
            ValueError: A file that cannot be read, a mask of another size than its image or one
                that may be read in two ways, or a box outside of its image.
        """
        from torchvision import tv_tensors

        index = range(len(self))[index]
        pixels, orientation = read_oriented(self.paths[index])
        image = tv_tensors.Image(pixels)
        label = self.labels[index : index + 1]
        if not self.truths:
            return (strip_subclass(self.transform(image)), *label)
        truth = self.truths[index]
        size = (int(image.shape[1]), int(image.shape[2]))
        if isinstance(truth, Path | Instances):
            mask = tv_tensors.Mask(
                read_mask(truth, size, orientation, self.ignore, self.upright)
                if isinstance(truth, Path)
                else read_instances(truth, size, orientation, self.upright)
            )
            image, mask = self.transform(image, mask)
            return (strip_subclass(image), *label, strip_subclass(mask))
        boxes = self._make_boxes(index, size, orientation)
        image, boxes = self.transform(image, boxes)
        return (strip_subclass(image), *label, _pad(strip_subclass(boxes), self._max_boxes))

    def _make_boxes(self, index: int, size: tuple[int, int], orientation: int) -> Any:  # noqa: ANN401
        """Return the boxes of an image of a size, (H, W), after it was turned upright."""
        from torchvision import tv_tensors

        boxes = torch.tensor(self.truths[index], dtype=torch.float32).reshape(-1, 4)
        stored = size[::-1] if swaps_sides(orientation) else size
        drawn, other = (size, stored) if self.upright else (stored, size)
        beyond = _find_beyond(boxes, drawn)
        if beyond is not None:
            box = tuple(boxes[beyond].tolist())
            hint = (
                ""
                if _find_beyond(boxes, other) is not None
                else (
                    f"; all boxes are within it {'as it is stored' if self.upright else 'turned'} "
                    f"{'and not turned ' if self.upright else 'upright '}by its EXIF tag, "
                    f"{other[0]}×{other[1]}: if they were drawn on such pixels, give "
                    f"upright={not self.upright}"
                )
            )
            raise ValueError(
                f"box {box} is not within {quote_path(self.paths[index])} of "
                f"{drawn[0]}×{drawn[1]}{hint}"
            )
        return tv_tensors.BoundingBoxes(
            boxes if self.upright else turn_boxes(boxes, orientation, size),
            format=tv_tensors.BoundingBoxFormat.XYXY,
            canvas_size=size,
        )

    @cached_property
    def _max_boxes(self) -> int:
        """Return the largest number of boxes of an image."""
        return max(len(boxes) for boxes in self.truths)  # type: ignore[arg-type]  # no paths here


def folder(root: str | Path, size: int = 224, transform: Transform | None = None) -> ImageFiles:
    """Return the images in a folder, labeled if there is a folder a class.

    Classes are numbered in the order of their folders' names, as in torchvision, and folders that
    are named by numbers, `0` to `999`, by these. Images are in that order too, by name within a
    class. Ids are paths within `root`. Files and folders whose names begin with a dot, such as
    `.ipynb_checkpoints`, and those of systems, such as `__MACOSX`, are left out; a folder without
    pictures is a class, too.

    Pictures are all files whose ending, in any case, is of a format that Pillow reads; of several
    frames the first one counts. Links to folders are followed, unless in a circle. A warning says
    how many other files were left out, once a folder and process; notes and archives, such as
    `.txt` or `.zip`, are skipped silently.

    Args:
        root: A folder of class folders, or of pictures, which then have no labels.
        size: The side of the images in pixels: the shorter side is resized to it (bicubic,
            antialiased) and the center is cropped.
        transform: Applied to an image instead; see `ImageFiles`.

    Raises:
        FileNotFoundError: There is no such folder, or no picture in it.
        ValueError: Pictures beside folders; or folders named by numbers, of which one is missing.
    """
    images = read_folder(Path(root), size, transform)
    check_numbers(images.classes, f"the folders in {quote_path(root)}")
    return images


def read_folder(root: Path, size: int = 224, transform: Transform | None = None) -> ImageFiles:
    """Return the images in a folder that may lack numbers of classes; see `folder`."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {quote_path(root)}")
    names = list_class_folders(root)
    search = Search(root)
    unsorted = search.find_in(root)
    if names and unsorted:
        raise ValueError(
            f"{quote_path(root)} has pictures, such as {quote_path(unsorted[0].name)}, beside "
            f"folders, such as {quote_path(names[0])}: move each picture into the folder of its "
            "class, or remove the folders"
        )
    folders = find_class_folders(root)
    found = [search.find_below(folders[name]) for name in names] if names else [unsorted]
    paths = tuple(itertools.chain.from_iterable(found))
    if not paths:
        left_out = search.describe_left_out() or "there is none of .jpg, .png and the like"
        raise FileNotFoundError(f"no pictures in {quote_path(root)}: {left_out}")
    search.warn_of_left_out()
    return ImageFiles(
        paths=paths,
        ids=tuple(escape_name(path.relative_to(root).as_posix()) for path in paths),
        labels=tuple(n for n, pictures in enumerate(found) for _ in pictures) if names else (),
        truths=(),
        classes=names,
        transform=transform or make_transform(size),
    )


def list_class_folders(root: Path) -> tuple[str, ...]:
    """Return the names of the folders in a folder without hidden ones, sorted, numbers by value."""
    names = sorted(find_class_folders(root))
    return tuple(names if parse_numbers(names) is None else sorted(names, key=int))


def make_transform(size: int) -> Transform:
    """Return the default transform: resize the shorter side (bicubic), crop the center, to [0, 1].

    Raises:
        ValueError: `size` is not a positive int.
    """
    from torchvision.transforms import v2

    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be a positive int, got {size!r}")
    bicubic = v2.InterpolationMode.BICUBIC
    steps: Transform = v2.Compose(
        [
            v2.Resize(size, interpolation=bicubic, antialias=True),
            v2.CenterCrop(size),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    return steps


def strip_subclass(value: Any) -> Any:  # noqa: ANN401 - a transform may return anything
    """Return a plain tensor: a subclass of torchvision would slow down every later operation."""
    return value.as_subclass(Tensor) if isinstance(value, Tensor) else value


def _find_beyond(boxes: Tensor, size: tuple[int, int]) -> int | None:
    """Return the number of the first box that goes beyond an image of (H, W)."""
    beyond = (boxes[:, 2] > size[1]) | (boxes[:, 3] > size[0])
    return int(beyond.nonzero()[0]) if bool(beyond.any()) else None


def _pad(boxes: Tensor, count: int) -> Tensor:
    """Return `count` boxes, with rows of NaN for those that are missing or have no area left."""
    empty = (boxes[:, 2:] <= boxes[:, :2]).any(1)
    padded = boxes.new_full((count, 4), torch.nan)
    padded[: len(boxes)] = boxes.masked_fill(empty[:, None], torch.nan)
    return padded
