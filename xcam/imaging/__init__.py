"""Images and maps as tensors, and image files."""

from __future__ import annotations

from xcam.imaging.coloring import (
    DIVERGING,
    SEQUENTIAL,
    Background,
    blend,
    brighten,
    colorize,
    fade,
    outline,
    overlay,
    shade,
    stretch,
)
from xcam.imaging.generators import draw_noise, make_generator
from xcam.imaging.pictures import Picture, Pictures, list_pictures, read_picture
from xcam.imaging.reading import read_image, read_pixels
from xcam.imaging.tensors import (
    Fill,
    blur,
    check_fill,
    fit,
    hash_images,
    is_flat,
    make_fill,
    normalize,
    normalize_signed,
    parse_size,
    resize,
    unfit,
)

__all__ = [
    "DIVERGING",
    "SEQUENTIAL",
    "Background",
    "Fill",
    "Picture",
    "Pictures",
    "blend",
    "blur",
    "brighten",
    "check_fill",
    "colorize",
    "draw_noise",
    "fade",
    "fit",
    "hash_images",
    "is_flat",
    "list_pictures",
    "make_fill",
    "make_generator",
    "normalize",
    "normalize_signed",
    "outline",
    "overlay",
    "parse_size",
    "read_image",
    "read_picture",
    "read_pixels",
    "resize",
    "shade",
    "stretch",
    "unfit",
]
