"""Images and maps as tensors, and image files."""

from __future__ import annotations

from xcam.imaging.reading import read_image, read_pixels
from xcam.imaging.tensors import (
    DIVERGING,
    SEQUENTIAL,
    Fill,
    blur,
    brighten,
    check_fill,
    colorize,
    fit,
    hash_images,
    is_flat,
    make_fill,
    normalize,
    normalize_signed,
    overlay,
    parse_size,
    resize,
    stretch,
)

__all__ = [
    "DIVERGING",
    "SEQUENTIAL",
    "Fill",
    "blur",
    "brighten",
    "check_fill",
    "colorize",
    "fit",
    "hash_images",
    "is_flat",
    "make_fill",
    "normalize",
    "normalize_signed",
    "overlay",
    "parse_size",
    "read_image",
    "read_pixels",
    "resize",
    "stretch",
]
