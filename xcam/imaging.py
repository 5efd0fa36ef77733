"""Images and maps as tensors: resize, blur, normalise, colour. Pure functions, on the device."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["blur", "colourise", "normalize", "overlay", "read_image", "resize", "stretch"]


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (B, h, w) maps to (B, H, W), pixel centres aligned (not corners)."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def normalize(maps: Tensor) -> Tensor:
    """Min-max of each map over its last two axes, into [0, 1]; a flat map becomes zeros."""
    lowest, highest = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    span = highest - lowest
    return torch.where(span > 0, (maps - lowest) / span.where(span > 0, 1), 0)


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


def stretch(images: Tensor) -> Tensor:
    """(B, C, H, W) images in [0, 1]: as they are where they fit, else min-max an image."""
    lowest = images.amin((1, 2, 3), keepdim=True)
    highest = images.amax((1, 2, 3), keepdim=True)
    fits = (lowest >= 0) & (highest <= 1)
    span = (highest - lowest).where(highest > lowest, 1)
    return torch.where(fits, images, (images - lowest) / span)


def colourise(maps: Tensor, colours: str = "turbo") -> Tensor:
    """Maps (B, H, W) in [0, 1] as colours (B, 3, H, W) in [0, 1], by a matplotlib colour map."""
    import matplotlib as mpl

    table = torch.as_tensor(mpl.colormaps[colours](range(256))[:, :3], dtype=torch.float32)
    steps = (maps.clamp(0, 1) * 255).round().long()
    return table.to(maps.device)[steps].movedim(-1, 1)


def overlay(images: Tensor, maps: Tensor, alpha: float = 0.6, colours: str = "turbo") -> Tensor:
    """Lays maps in [0, 1] over images: opacity is `alpha` times the map.

    Args:
        images: (B, C, H, W), C of 1 or 3.
        maps: (B, H, W) in [0, 1].
        alpha: Opacity where the map is 1, in [0, 1].
        colours: A matplotlib colour map.

    Returns:
        (B, 3, H, W) float32 in [0, 1].
    """
    if images.shape[1] not in (1, 3):
        raise ValueError(f"a picture needs 1 or 3 channels, got {images.shape[1]}")
    base = stretch(images.detach().float()).expand(-1, 3, -1, -1)
    opacity = (alpha * maps)[:, None]
    return base * (1 - opacity) + colourise(maps, colours) * opacity


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
        ValueError: The file is no picture.
    """
    from torchvision.io import ImageReadMode, decode_image

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {str(path)!r}")
    try:
        pixels = decode_image(str(path), ImageReadMode.RGB, apply_exif_orientation=True)
    except RuntimeError as error:
        raise ValueError(f"{str(path)!r} is not a picture that can be read: {error}") from error
    image = pixels.float() / 255
    return image if size is None else fit(image, size)


def fit(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Resizes (3, H, W) so that `size` is covered, and crops its centre."""
    from torchvision.transforms.v2 import functional as transforms

    height, width = (size, size) if isinstance(size, int) else size
    scale = max(height / image.shape[-2], width / image.shape[-1])
    covering = [
        max(height, round(image.shape[-2] * scale)),
        max(width, round(image.shape[-1] * scale)),
    ]
    bicubic = transforms.InterpolationMode.BICUBIC
    larger = transforms.resize(image, covering, interpolation=bicubic, antialias=True)
    cropped: Tensor = transforms.center_crop(larger, [height, width]).clamp(0, 1)
    return cropped
