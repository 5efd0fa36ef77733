"""Mask files: which pixels are the object, whatever Pillow's mode and the file's format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from xcam.data.softness import REMEDY, is_soft
from xcam.imaging.reading import (
    open_picture,
    read_orientation,
    swaps_sides,
    turn,
    turn_upright,
)
from xcam.sentences import quote_path

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["read_mask"]

_UNKNOWN = 255
_LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF", "HEIF")

_Values = NDArray[Any]


def read_mask(
    path: Path, size: tuple[int, int], orientation: int, ignore: int | None, upright: bool
) -> Tensor:
    """Read a mask file as (H, W) uint8: 1 on the object, 0 elsewhere, 255 where it is unknown.

    - Gray of any depth: every value but 0 is the object. Where a mask is soft, with edges or
      gradients up to white, dark and bright, and hardly two equal values side by side, it is what
      is at least half white; a gray area apart from the white is refused then. Fractions, in a
      file of floats, must be in [0, 1], and the object is 0.5 and above.
    - Colors: black is the background. The depth of a color does not count.
    - Palettes: the numbers count, as in VOC's masks, if number 0 is black or transparent; else, in
      a GIF, and where all colors are gray, the colors.
    - Transparency: what is not transparent, unless the colors alone show another object, which a
      cut-out photograph does not: black pixels within it count as it.
    - JPEG and other lossy formats, whose values are not exact: what is at least half as bright as
      the object, which must be of one bright gray or color.

    Args:
        path: The file.
        size: (H, W) of the image, turned upright.
        orientation: The EXIF orientation of the image's file.
        ignore: The value, or gray color, of unknown pixels.
        upright: Whether the mask was drawn on the upright image. A mask with an EXIF tag of its
            own is turned by that, and one that fits just one of both ways by its size.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, has another size than the image, or may be read in two ways.
    """
    with open_picture(path, "mask") as file:
        own = read_orientation(file)
        frames = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)
        lossy = _is_lossy(file, path)
        picture = turn_upright(file)
        picture.format = file.format
        picture.load()
    try:
        if frames > 1:
            raise ValueError(f"has {frames} frames; {REMEDY}")
        if lossy and ignore is not None:
            raise ValueError(
                f"is a {file.format}, whose values are not exact, so that none of them can be "
                f"ignore={ignore}; save masks as PNG when they are made"
            )
        mask = torch.from_numpy(_find_object(picture, lossy, ignore))
    except ValueError as error:
        raise ValueError(f"the mask {quote_path(path)} {error}") from error
    return _fit_orientation(mask, path, size, orientation, upright or own != 1)


def _fit_orientation(
    mask: Tensor, path: Path, size: tuple[int, int], orientation: int, upright: bool
) -> Tensor:
    """Turn a mask as its image was turned, unless it was drawn on the upright image."""
    stored = size[::-1] if swaps_sides(orientation) else size
    found = tuple(mask.shape)
    if found not in (size, stored):
        also = f" (as stored {stored[0]}×{stored[1]})" if stored != size else ""
        raise ValueError(
            f"the mask {quote_path(path)} is {found[0]}×{found[1]}, its image "
            f"{size[0]}×{size[1]}{also}: they must agree"
        )
    is_upright = upright if stored == size else found == size
    return mask if is_upright else turn(mask, orientation)


def _is_lossy(file: Picture, path: Path) -> bool:
    if file.format == "WEBP":
        with path.open("rb") as content:
            return b"VP8L" not in content.read(4096)  # the name of the lossless chunk
    return file.format in _LOSSY or file.info.get("compression") == "jpeg"


def _find_object(picture: Picture, lossy: bool, ignore: int | None) -> NDArray[np.uint8]:
    """Return (H, W) uint8; errors say what the mask is, and are completed by the caller."""
    if picture.mode in ("P", "PA") and _counts_by_number(picture, ignore):
        numbers = np.array(picture.getchannel(0))
        return _mark(numbers != 0, numbers == ignore)
    if picture.mode in ("1", "L") or picture.mode.startswith(("I", "F")):
        values = np.array(picture)
        values = values.astype(values.dtype.newbyteorder("="))  # scipy wants the machine's own
        return _mark(_split_gray(values, lossy, ignore), values == ignore)
    has_alpha = picture.has_transparency_data
    colors = np.array(picture.convert("RGBA" if has_alpha else "RGB"))
    colors, alpha = colors[..., :3], colors[..., 3:]
    unknown = (colors == ignore).all(2)
    if has_alpha and alpha.min() < alpha.max():
        return _mark(_split_alpha(colors, alpha[..., 0], lossy), unknown)
    by_color = _split_colors(colors, lossy, ignore)
    if not lossy:
        _require_background(by_color, colors, unknown)
    return _mark(by_color, unknown)


def _mark(is_object: _Values, is_unknown: _Values) -> NDArray[np.uint8]:
    return np.where(is_unknown, _UNKNOWN, is_object).astype(np.uint8)


def _counts_by_number(picture: Picture, ignore: int | None) -> bool:
    """Return whether number 0 of a palette is shown as background, so that numbers are labels.

    A palette of grays is a gray picture: its numbers may be in any order.
    """
    used = np.unique(np.array(picture.getchannel(0)))
    palette = np.zeros((256, 3), np.uint8)
    given = np.reshape(picture.getpalette("RGB") or [], (-1, 3))
    palette[: len(given)] = given
    grays = palette[used]
    is_gray = bool((grays == grays[:, :1]).all()) and len(np.unique(grays[:, 0])) == len(used)
    clear = picture.info.get("transparency")
    is_clear = clear[:1] == b"\0" if isinstance(clear, bytes) else clear == 0
    is_background = is_clear or not palette[0].any()
    return is_background and picture.format != "GIF" and (ignore is not None or not is_gray)


def _split_gray(values: _Values, lossy: bool, ignore: int | None) -> _Values:
    """Return which gray values (H, W) are the object."""
    if values.dtype.kind == "f":
        return _split_fractions(values)
    if lossy:
        return _split_lossy(values)
    top = 255 if values.max() <= 255 else 65535
    if ignore is None and is_soft(values, top):
        return values >= (top + 1) // 2
    _check_background(np.unique(values[values != ignore]))
    is_object: _Values = values != 0
    return is_object


def _split_fractions(values: _Values) -> _Values:
    if not np.isfinite(values).all():
        raise ValueError(f"holds values that are not finite; {REMEDY}")
    is_whole = not (values % 1).any()
    if not is_whole and (values.min() < 0 or values.max() > 1):
        raise ValueError(
            f"holds fractions from {values.min():g} to {values.max():g}, and only those from 0 to "
            f"1 have a known middle; {REMEDY}"
        )
    if is_whole:
        _check_background(np.unique(values))
    return values != 0 if is_whole else values >= 0.5


def _check_background(found: _Values) -> None:
    if len(found) > 1 and found[0] > 0:
        some = ", ".join(f"{value:g}" for value in found[:4]) + (", …" if len(found) > 4 else "")
        raise ValueError(
            f"has the values {some} and no 0, which stands for the background; {REMEDY}"
        )


def _split_lossy(values: _Values) -> _Values:
    """Return what is at least half as bright as the areas that are not black.

    These must be of about one brightness: else edges cannot be told from areas, nor dark areas from
    the ringing around bright ones.
    """
    values = values.astype(np.int16)
    spread = ndimage.maximum_filter(values, 3) - ndimage.minimum_filter(values, 3)
    areas = values[(values >= 16) & (spread <= 8)]
    low, middle, high = np.percentile(areas, (1, 50, 99)) if len(areas) else [values.max()] * 3
    least = 64 if len(areas) else 192  # what is too thin for an area must be white
    if values.any() and (low < least or low < 0.6 * high):
        raise ValueError(
            "is in a format whose values are not exact, and not just black and one bright gray or "
            f"color; {REMEDY}, when it is made"
        )
    is_object: _Values = (values > 0) & (2 * values >= middle)
    return is_object


def _split_colors(colors: _Values, lossy: bool, ignore: int | None) -> _Values:
    """Return which colors (H, W, 3) are not black."""
    brightest = colors.max(2)
    if lossy:
        return _split_lossy(brightest)
    is_gray = bool((colors == colors[..., :1]).all())
    cut = 128 if is_gray and ignore is None and is_soft(brightest, 255) else 1
    is_object: _Values = brightest >= cut
    return is_object


def _require_background(is_object: _Values, colors: _Values, unknown: _Values) -> None:
    """Refuse several colors of which none is black."""
    rest = colors[~unknown]
    if is_object[~unknown].all() and len(rest) and (rest != rest[0]).any():
        raise ValueError(
            f"has several colors and no black, which stands for the background; {REMEDY}"
        )


def _split_alpha(colors: _Values, alpha: _Values, lossy: bool) -> _Values:
    """Return the object by transparency, after refusing colors that show another.

    Those of a cut-out photograph do not: some of its pixels are black, and under what is
    transparent anything may be left.
    """
    if lossy:
        by_alpha = _split_lossy(alpha)
    else:
        by_alpha = alpha >= (128 if is_soft(alpha, 255, certain=0.5) else 1)
    if by_alpha.all():
        raise ValueError(
            f"is nowhere transparent (alpha from {alpha.min()} to {alpha.max()}); {REMEDY}"
        )
    is_black = colors.max(2) < (16 if lossy else 1)
    inside = is_black[by_alpha & (alpha == alpha.max())]
    outside = is_black[alpha == 0]
    if is_black.all() or not (inside.any() or outside.any()):
        return by_alpha
    is_gray = (colors == colors[..., :1]).all()
    is_photograph = (
        not is_gray and len(np.unique(colors[by_alpha] @ np.array([1, 256, 65536]))) > 64
    )
    is_left = outside.any() and not outside.all() and outside.mean() > 0.1
    if inside.mean() > (0.5 if is_photograph else 0.1) or (is_left and not is_photograph):
        raise ValueError(
            f"shows one object by its colors and another by its transparency; {REMEDY}"
        )
    return by_alpha
