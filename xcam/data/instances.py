"""The objects of an image in a mask file each, and what is to be ignored in one of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xcam.imaging.reading import open_picture, swaps_sides, turn

__all__ = ["Instances", "read_instances"]


@dataclass(frozen=True)
class Instances:
    """The mask files of an image.

    Attributes:
        masks: A file an object: every value but 0 is the object.
        ignored: Where pixels count for neither side, unless an object is there.
    """

    masks: tuple[Path, ...]
    ignored: Path | None = None

    def files(self) -> tuple[Path, ...]:
        """Return all files."""
        return self.masks if self.ignored is None else (*self.masks, self.ignored)


def read_instances(
    instances: Instances, size: tuple[int, int], orientation: int, upright: bool
) -> Tensor:
    """Read masks as (H, W) uint8: 1 on any object, 255 where pixels are ignored, 0 elsewhere.

    Files of another size are resized by the nearest pixel.

    Args:
        instances: The files.
        size: (H, W) of the image, turned upright.
        orientation: The EXIF orientation of the image's file.
        upright: Whether the masks were drawn on the upright image.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read.
    """
    drawn = size[::-1] if swaps_sides(orientation) and not upright else size
    objects = np.any([_read(path, drawn) for path in instances.masks], 0)
    mask = objects.astype(np.uint8)
    if instances.ignored is not None:
        mask[_read(instances.ignored, drawn) & ~objects] = 255
    found = torch.from_numpy(mask)
    return found if upright else turn(found, orientation)


def _read(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    from PIL import Image

    with open_picture(path, "mask") as file:
        gray = file.convert("L").resize(size[::-1], Image.Resampling.NEAREST)
    found: NDArray[np.bool_] = np.array(gray) > 0
    return found
