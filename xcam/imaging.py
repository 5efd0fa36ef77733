"""Images and maps as tensors: resize, blur, normalise, colour. Pure functions, on the device."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Fill",
    "blur",
    "brighten",
    "check_fill",
    "colorize",
    "is_flat",
    "make_fill",
    "normalize",
    "overlay",
    "parse_size",
    "read_image",
    "read_pixels",
    "resize",
    "stretch",
]

Fill: TypeAlias = Literal["zero", "mean", "blur"] | Tensor


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (B, h, w) maps to (B, H, W), pixel centres aligned (not corners)."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def normalize(maps: Tensor) -> Tensor:
    """Min-max of each map over its last two axes, into [0, 1]; a flat map becomes zeros."""
    lowest, highest = maps.flatten(-2).aminmax(dim=-1)
    # Divided by infinity where the map is flat: what is left of it is rounding.
    span = (highest - lowest).masked_fill(_flat(lowest, highest), torch.inf)
    return (maps - lowest[..., None, None]) / span[..., None, None]


def is_flat(maps: Tensor) -> Tensor:
    """Whether each map of (…, H, W) is the same everywhere, up to the rounding of a resize."""
    return _flat(*maps.flatten(-2).aminmax(dim=-1))


def _flat(lowest: Tensor, highest: Tensor) -> Tensor:
    largest = torch.maximum(lowest.abs(), highest.abs())
    return highest - lowest <= 8 * torch.finfo(lowest.dtype).eps * largest


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, C, H, W), truncated at 4σ, edges replicated; σ in pixels."""
    if sigma <= 0:
        return images
    radius = max(1, round(4 * sigma))
    steps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = (-0.5 * (steps / sigma) ** 2).exp()
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    channels = images.shape[1]
    rows = F.pad(images, (radius, radius, 0, 0), mode="replicate")
    rows = F.conv2d(rows, kernel, groups=channels)
    columns = F.pad(rows, (0, 0, radius, radius), mode="replicate")
    return F.conv2d(columns, kernel.transpose(-1, -2), groups=channels)


def make_fill(images: Tensor, fill: Fill) -> Tensor:
    """What stands in for the pixels of images that are taken away.

    Args:
        images: (B, C, H, W).
        fill: `"zero"` (black for a model that takes [0, 1] pixels, the data set's mean colour for
            one that takes normalised ones), `"mean"` for each image's own mean colour, `"blur"` for
            the image under a Gaussian of σ = max(H, W)/20 (11 pixels at 224), or a tensor for all
            images: a scalar, (C,) a colour, or (C, H, W) a picture, with or without a first axis
            of 1 and with C, H, W of 1 for "the same everywhere".

    Returns:
        (B, C, H, W) of the images' dtype, on their device; may be an expanded view: do not write.

    Raises:
        TypeError: `fill` is neither a word nor a tensor.
        ValueError: An unknown word, or a tensor that does not fit each image alike.
    """
    check_fill(fill)
    if isinstance(fill, Tensor):
        return _fill_tensor(images, fill)
    if fill == "zero":
        return images.new_zeros(()).expand_as(images)
    if fill == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    return blur(images, max(images.shape[2:]) / 20)


def check_fill(fill: object) -> None:
    """Refuses, with a `TypeError` or `ValueError`, what no images can be filled with."""
    if not isinstance(fill, str | Tensor):
        raise TypeError(f"fill must be 'zero', 'mean', 'blur' or a tensor, got {fill!r}")
    if isinstance(fill, str) and fill not in ("zero", "mean", "blur"):
        raise ValueError(f"fill must be 'zero', 'mean', 'blur' or a tensor, got {fill!r}")


def _fill_tensor(images: Tensor, fill: Tensor) -> Tensor:
    shape = fill[:, None, None].shape if fill.ndim == 1 else fill.shape
    one = shape[1:] if len(shape) == 4 and shape[0] == 1 else shape
    wanted = images.shape[1:]
    fits = len(one) in (0, 3) and all(n in (1, w) for n, w in zip(one, wanted, strict=False))
    if not fits:
        raise ValueError(
            f"a fill tensor must be a scalar, ({wanted[0]},) or {tuple(wanted)}, the same for all "
            f"images, got {tuple(fill.shape)}"
        )
    return fill.to(images).reshape(one).expand_as(images)


def brighten(maps: Tensor) -> Tensor:
    """Maps (B, H, W) of single bright pixels as something to look at, in [0, 1].

    They are blurred by a hundredth of the longer side, and brightened until their 99th percentile
    is 1.
    """
    smooth = blur(maps[:, None], max(maps.shape[-2:]) / 100)[:, 0]
    high = smooth.flatten(1).quantile(0.99, dim=1)[:, None, None]
    return (smooth / high.where(high > 0, 1)).clamp(0, 1)


def stretch(images: Tensor) -> Tensor:
    """(B, C, H, W) images in [0, 1]: as they are where they fit, else min-max an image."""
    lowest = images.amin((1, 2, 3), keepdim=True)
    highest = images.amax((1, 2, 3), keepdim=True)
    fits = (lowest >= 0) & (highest <= 1)
    span = (highest - lowest).where(highest > lowest, 1)
    return torch.where(fits, images, (images - lowest) / span)


def colorize(maps: Tensor, colors: str = "turbo") -> Tensor:
    """Maps (B, H, W) in [0, 1] as colours (B, 3, H, W) in [0, 1], by a matplotlib colour map."""
    import matplotlib as mpl

    if colors not in mpl.colormaps:
        near = difflib.get_close_matches(colors, mpl.colormaps, n=3, cutoff=0.4) or ["turbo"]
        raise ValueError(f"no colour map {colors!r}; did you mean {', '.join(near)}?")
    table = torch.as_tensor(mpl.colormaps[colors](range(256))[:, :3], dtype=torch.float32)
    steps = (maps.clamp(0, 1) * 255).round().long()
    return table.to(maps.device)[steps].movedim(-1, 1)


def overlay(images: Tensor, maps: Tensor, alpha: float = 0.6, colors: str = "turbo") -> Tensor:
    """Lays maps in [0, 1] over images: opacity is `alpha` times the map.

    Args:
        images: (B, C, H, W), C of 1 or 3.
        maps: (B, H, W) in [0, 1].
        alpha: Opacity where the map is 1, in [0, 1].
        colors: A matplotlib colour map.

    Returns:
        (B, 3, H, W) float32 in [0, 1].
    """
    if images.shape[1] not in (1, 3):
        raise ValueError(f"a picture needs 1 or 3 channels, got {images.shape[1]}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    base = stretch(images.detach().float()).expand(-1, 3, -1, -1)
    opacity = (alpha * maps)[:, None]
    return base * (1 - opacity) + colorize(maps, colors) * opacity


def read_image(path: str | Path, size: int | tuple[int, int] | None = None) -> Tensor:
    """Reads a JPEG, PNG, GIF or WebP file, upright by its EXIF tag.

    Args:
        path: The file.
        size: (H, W), or one number for a square: the shorter side is resized to fit (bicubic,
            antialiased) and the centre cropped. None keeps the picture as it is.

    Returns:
        (3, H, W) float32 in [0, 1].

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no picture, or one of more than 8 bits a channel; or a bad `size`.
    """
    image = read_pixels(path).float() / 255
    return image if size is None else fit(image, size)


def read_pixels(path: str | Path) -> Tensor:
    """The picture of a file as `read_image` reads it, (3, H, W) uint8.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no picture, or one of more than 8 bits a channel.
    """
    import numpy as np
    from PIL import Image, ImageOps

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {str(path)!r}")
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith(("I", "F")):  # which Pillow would clip, not scale
                raise OSError(f"mode {picture.mode} has more than 8 bits a channel")
            return torch.from_numpy(np.array(picture.convert("RGB"))).movedim(-1, 0)
    except OSError as error:
        raise ValueError(f"{str(path)!r} is not a picture that can be read: {error}") from error


def parse_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """A size as (H, W), of which one number is a square.

    Raises:
        ValueError: It is not one or two positive ints.
    """
    sides = (size, size) if isinstance(size, int) else size
    positive = isinstance(sides, Sequence) and all(type(n) is int and n > 0 for n in sides)
    if not positive or len(sides) != 2:
        raise ValueError(f"size must be a positive int, or two, (H, W), got {size!r}")
    return sides[0], sides[1]


def fit(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Resizes (3, H, W) so that `size` is covered, and crops its centre."""
    from torchvision.transforms.v2 import functional as transforms

    height, width = parse_size(size)
    scale = max(height / image.shape[-2], width / image.shape[-1])
    covering = [
        max(height, round(image.shape[-2] * scale)),
        max(width, round(image.shape[-1] * scale)),
    ]
    bicubic = transforms.InterpolationMode.BICUBIC
    larger = transforms.resize(image, covering, interpolation=bicubic, antialias=True)
    cropped: Tensor = transforms.center_crop(larger, [height, width]).clamp(0, 1)
    return cropped
