"""Pictures of any form as tensors: files, PIL images, arrays and tensors of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from xcam.imaging.reading import convert_colors, open_picture, turn_upright

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Picture", "Pictures", "list_pictures", "read_picture"]

Picture: TypeAlias = "str | Path | Image | np.ndarray[Any, Any] | Tensor"
Pictures: TypeAlias = "Picture | Sequence[Picture]"
"""A picture or several: a file, a PIL image, an array (H, W), (H, W, 1) or (H, W, 3), or a tensor
(C, H, W); of uint8, or of floating point in [0, 1]. Arrays and tensors may have a first axis more.
"""


def list_pictures(pictures: object) -> list[Picture] | None:
    """Return pictures one by one; None for what is none, such as a batch (B, C, H, W) of floats.

    An array or a tensor of floats (C, H, W) by itself is no picture: it may be normalized.
    """
    if isinstance(pictures, Tensor):
        if pictures.dtype != torch.uint8 or pictures.ndim not in (3, 4):
            return None
        return [*pictures] if pictures.ndim == 4 else [pictures]
    if isinstance(pictures, np.ndarray) and pictures.ndim == 4:
        return [*pictures]
    if _is_picture(pictures):
        return [pictures]  # type: ignore[list-item]  # as was just found
    if isinstance(pictures, list | tuple) and pictures and all(map(_is_picture, pictures)):
        return [*pictures]
    return None


def read_picture(picture: Picture, channels: int = 3) -> Tensor:
    """Return the pixels of a picture, (C, H, W) float32 in [0, 1].

    Files and PIL images are turned upright by their EXIF tag.

    Args:
        picture: See `Pictures`.
        channels: 3 for colors, into which gray is spread; 1 for gray.

    Raises:
        TypeError: Values that are neither uint8 nor floating point.
        ValueError: Floats outside [0, 1], another shape, colors for 1 channel, or a file that
            cannot be read; see `xcam.read_image`.
        FileNotFoundError: There is no such file.
    """
    if isinstance(picture, Tensor | np.ndarray):
        return _match_channels(_read_array(picture), channels)
    if isinstance(picture, str | Path):
        with open_picture(picture) as file:
            return _read_image(file, channels)
    return _read_image(picture, channels)


def _read_image(image: Image, channels: int) -> Tensor:
    colors = convert_colors(turn_upright(image))
    pixels = np.array(colors if channels == 3 else colors.convert("L"))
    return torch.from_numpy(pixels).view(*pixels.shape[:2], -1).movedim(-1, 0).float() / 255


def _read_array(array: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """Return an array (H, W, C) or a tensor (C, H, W) as float32 (C, H, W), checked."""
    kind, shape = type(array).__name__, tuple(array.shape)
    pixels = array if isinstance(array, Tensor) else torch.from_numpy(np.array(array))
    if isinstance(array, np.ndarray):
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        pixels = pixels.movedim(-1, 0)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or 0 in shape:
        axes = (
            "(H, W), (H, W, 1) or (H, W, 3)" if isinstance(array, np.ndarray) else "(1 or 3, H, W)"
        )
        raise ValueError(f"a picture as {kind} must be {axes}, got {shape}")
    if pixels.dtype == torch.uint8:
        return pixels.float() / 255
    if not pixels.is_floating_point():
        raise TypeError(
            f"pixels must be uint8, or floating point in [0, 1], got {array.dtype}; divide them by "
            "their white"
        )
    lowest, highest = pixels.aminmax()
    if not (lowest >= 0 and highest <= 1):  # nor are they where a value is NaN
        raise ValueError(
            f"pixels in floating point must be in [0, 1], got {float(lowest):g} to "
            f"{float(highest):g}; divide them by their white, such as 255"
        )
    return pixels.float()


def _match_channels(pixels: Tensor, channels: int) -> Tensor:
    if len(pixels) == channels:
        return pixels
    if channels == 1:
        raise ValueError(
            "the model takes gray pictures, got one in colors; average them: array.mean(-1)"
        )
    return pixels.expand(channels, -1, -1)


def _is_picture(value: object) -> bool:
    """Return whether a value is a single picture."""
    if isinstance(value, str | Path | Tensor | np.ndarray):
        return True
    return hasattr(value, "convert") and hasattr(value, "getexif")
