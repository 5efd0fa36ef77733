"""Image files as tensors, turned upright by their EXIF tag."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from xcam.imaging.tensors import fit
from xcam.sentences import quote_path

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = [
    "convert_colors",
    "open_picture",
    "read_image",
    "read_oriented",
    "read_pixels",
    "turn",
    "turn_boxes",
]

_ORIENTATION = 0x0112  # EXIF's tag
# By its value: whether rows and columns change places, then which of (H, W) run backwards.
_TURNS: dict[int, tuple[bool, tuple[bool, bool]]] = {
    1: (False, (False, False)),
    2: (False, (False, True)),
    3: (False, (True, True)),
    4: (False, (True, False)),
    5: (True, (False, False)),
    6: (True, (False, True)),
    7: (True, (True, True)),
    8: (True, (True, False)),
}


def read_image(path: str | Path, size: int | tuple[int, int] | None = None) -> Tensor:
    """Read a JPEG, PNG, GIF, WebP or other image file, turned upright by its EXIF tag.

    Of a file with several frames, such as an animated GIF, it is the first.

    Args:
        path: The file.
        size: (H, W), or one number for a square: the image is resized to cover it (bicubic,
            antialiased) and its center cropped. None keeps the image as it is.

    Returns:
        (3, H, W) float32 in [0, 1].

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no image, damaged, larger than `PIL.Image.MAX_IMAGE_PIXELS` allows,
            may not be read, or has more than 8 bits a channel; or a bad `size`.
    """
    image = read_pixels(path).float() / 255
    return image if size is None else fit(image, size)


def read_pixels(path: str | Path) -> Tensor:
    """Read an image file as `read_image` does, as (3, H, W) uint8.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read; see `read_image`.
    """
    return read_oriented(path)[0]


def read_oriented(path: str | Path) -> tuple[Tensor, int]:
    """Read an image file as (3, H, W) uint8, and the EXIF orientation by which it was turned.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read; see `read_image`.
    """
    with open_picture(path) as file:
        orientation = read_orientation(file)
        pixels = np.array(convert_colors(turn_upright(file)))
    return torch.from_numpy(pixels).movedim(-1, 0), orientation


@contextmanager
def open_picture(path: str | Path, kind: str = "picture") -> Iterator[Picture]:
    """Open an image file; whatever goes wrong in the block is an error that names the file.

    Args:
        path: The file.
        kind: What the file should be, for the message.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read.
    """
    from PIL import Image

    path = Path(path)
    try:
        with path.open("rb") as content, Image.open(content) as file:
            yield file
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(f"no {kind} at {quote_path(path)}") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise SyntaxError, struct.error and others, too
        reason = _explain_failure(error, path)
        raise ValueError(
            f"{quote_path(path)} is not a {kind} that can be read: {reason}"
        ) from error


def read_orientation(file: Picture) -> int:
    """Return the EXIF orientation of an open file, 1 to 8; 1 where it has none or a wrong one.

    It is read before the pixels: Pillow turns a TIFF while it loads it, and drops the tag.
    """
    found = file.getexif().get(_ORIENTATION, 1)
    return found if found in _TURNS else 1


def turn_upright(file: Picture) -> Picture:
    """Return the picture of an open file, turned by its EXIF tag."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(file)


def turn(pixels: Tensor, orientation: int) -> Tensor:
    """Turn pixels (…, H, W), as they are stored under an EXIF orientation, upright."""
    swapped, backwards = _TURNS[orientation]
    turned = pixels.transpose(-2, -1) if swapped else pixels
    return turned.flip([axis for axis, flip in zip((-2, -1), backwards, strict=True) if flip])


def turn_boxes(boxes: Tensor, orientation: int, size: tuple[int, int]) -> Tensor:
    """Turn boxes (N, 4), x0 y0 x1 y1 in pixels as they are stored, to an upright image of a size.

    Args:
        boxes: Of an image as it is stored.
        orientation: The image's EXIF orientation.
        size: (H, W) of the upright image.
    """
    swapped, backwards = _TURNS[orientation]
    turned = boxes[:, [1, 0, 3, 2]] if swapped else boxes.clone()
    for axis, length, flip in zip((1, 0), size, backwards, strict=True):
        if flip:
            turned[:, [axis, axis + 2]] = length - turned[:, [axis + 2, axis]]
    return turned


def swaps_sides(orientation: int) -> bool:
    """Return whether an EXIF orientation turns a wide image into a tall one."""
    return _TURNS[orientation][0]


def convert_colors(picture: Picture) -> Picture:
    """Return a picture in RGB; refuse, with a `ValueError`, more than 8 bits a channel."""
    if picture.mode.startswith(("I", "F")):  # Pillow would clip, not scale, to 8 bits
        values = np.asarray(picture)
        raise ValueError(
            f"mode {picture.mode} has more than 8 bits a channel, here {values.min():g} to "
            f"{values.max():g}, and xcam can't tell which values are black and white; convert "
            "it first, such as PIL.Image.fromarray(numpy.interp(numpy.asarray(PIL.Image.open("
            f"path)), ({values.min():g}, {values.max():g}), (0, 255)).round().astype('uint8'))"
            ".save('8bit.png'), with the same two numbers for all pictures"
        )
    if isinstance(picture.info.get("transparency"), bytes) and picture.mode == "P":
        picture = picture.convert("RGBA")  # as Pillow asks for in a warning; the same colors
    return picture.convert("RGB")


def _explain_failure(error: Exception, path: Path) -> str:
    """Return why a file cannot be read, in a few words, with a remedy where there is one."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return (
            f"{error} Resize the file, or raise PIL.Image.MAX_IMAGE_PIXELS, now "
            f"{Image.MAX_IMAGE_PIXELS}, if you trust it"
        )
    if isinstance(error, UnidentifiedImageError):
        empty = path.stat().st_size == 0
        return "the file is empty" if empty else "Pillow knows no format that begins like this file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
