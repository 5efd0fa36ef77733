"""Maps in color, over images: for the eye, not for measurements."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from xcam.imaging.tensors import blur

__all__ = [
    "DIVERGING",
    "SEQUENTIAL",
    "Background",
    "blend",
    "brighten",
    "colorize",
    "fade",
    "outline",
    "overlay",
    "shade",
    "stretch",
]

Background: TypeAlias = Literal["color", "gray"]
SEQUENTIAL, DIVERGING = "turbo", "RdBu_r"
"""The color maps of overlays: of maps in [0, 1], and of those around zero."""
_GRAY = torch.tensor([0.299, 0.587, 0.114])


def brighten(maps: Tensor) -> Tensor:
    """Make maps (B, H, W) of single bright pixels easy to see; in [0, 1], or signed in [−1, 1].

    They are blurred by a hundredth of the longer side, and scaled so that the 99th percentile of
    their magnitude is 1.
    """
    smooth = blur(maps[:, None], max(maps.shape[-2:]) / 100)[:, 0]
    high = smooth.flatten(1).abs().quantile(0.99, dim=1)[:, None, None]
    return (smooth / high.where(high > 0, 1)).clamp(-1, 1)


def stretch(images: Tensor) -> Tensor:
    """Scale each image of (B, C, H, W) linearly into [0, 1], unless it lies there already."""
    lowest = images.amin((1, 2, 3), keepdim=True)
    highest = images.amax((1, 2, 3), keepdim=True)
    fits = (lowest >= 0) & (highest <= 1)
    span = (highest - lowest).where(highest > lowest, 1)
    return torch.where(fits, images, (images - lowest) / span)


def colorize(maps: Tensor, colors: str = SEQUENTIAL) -> Tensor:
    """Color maps (B, H, W) in [0, 1] by a matplotlib color map; (B, 3, H, W) in [0, 1]."""
    import matplotlib as mpl

    if colors not in mpl.colormaps:
        near = difflib.get_close_matches(colors, mpl.colormaps, n=3, cutoff=0.4) or [SEQUENTIAL]
        raise ValueError(f"no color map {colors!r}; did you mean {', '.join(near)}?")
    table = torch.as_tensor(mpl.colormaps[colors](range(256))[:, :3], dtype=torch.float32)
    steps = (maps.clamp(0, 1) * 255).round().long()
    return table.to(maps.device)[steps].movedim(-1, 1)


def overlay(
    images: Tensor,
    maps: Tensor,
    alpha: float = 0.6,
    colors: str | None = None,
    diverging: bool = False,
    background: Background = "color",
) -> Tensor:
    """Lay maps over images; the opacity is `alpha` times the map's magnitude.

    Args:
        images: (B, C, H, W), C of 1 or 3.
        maps: (B, H, W) in [0, 1], or in [−1, 1] if `diverging`.
        alpha: Opacity where the map is 1, in [0, 1].
        colors: A matplotlib color map, of which the middle stands for zero if `diverging`; None for
            `SEQUENTIAL` or `DIVERGING`.
        diverging: Whether the colors diverge around zero.
        background: `"gray"` takes the images without their colors.

    Returns:
        (B, 3, H, W) float32 in [0, 1].
    """
    if images.shape[1] not in (1, 3):
        raise ValueError(f"a picture needs 1 or 3 channels, got {images.shape[1]}")
    if background not in ("color", "gray"):
        raise ValueError(f"background must be 'color' or 'gray', got {background!r}")
    base = stretch(images.detach().float())
    if background == "gray" and base.shape[1] == 3:
        base = torch.einsum("bchw,c->bhw", base, _GRAY.to(base))[:, None]
    return blend(base.expand(-1, 3, -1, -1), maps, alpha, colors, diverging)


def blend(
    base: Tensor, maps: Tensor, alpha: float, colors: str | None = None, diverging: bool = False
) -> Tensor:
    """Blend colors (B, 3, H, W) with those of maps (B, H, W); see `overlay`."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    opacity = (alpha * maps.abs())[:, None]
    return base * (1 - opacity) + shade(maps, colors, diverging) * opacity


def shade(maps: Tensor, colors: str | None = None, diverging: bool = False) -> Tensor:
    """Color maps (B, H, W) by themselves, (B, 3, H, W); see `overlay`."""
    values = (maps + 1) / 2 if diverging else maps
    return colorize(values, colors or (DIVERGING if diverging else SEQUENTIAL))


def outline(pictures: Tensor, maps: Tensor, levels: Sequence[float]) -> Tensor:
    """Draw lines of equal magnitude of maps on pictures, white within and black without.

    Args:
        pictures: (B, 3, H, W) in [0, 1].
        maps: (B, H, W) in [−1, 1].
        levels: Magnitudes, each in (0, 1).

    Raises:
        ValueError: A level that is not in (0, 1).
    """
    width = max(1, round(max(maps.shape[-2:]) / 400))
    for level in levels:
        if not 0 < level < 1:
            raise ValueError(f"contours are at shares of the maximum in (0, 1), got {level}")
        inside = (maps.abs() >= level).float()[:, None]
        wider, narrower = _dilate(inside, width), 1 - _dilate(1 - inside, width)
        pictures = pictures.where(wider == inside, 0)
        pictures = pictures.where(narrower == inside, 1)
    return pictures


def _dilate(masks: Tensor, width: int) -> Tensor:
    return F.max_pool2d(masks, 2 * width + 1, stride=1, padding=width)


def fade(pictures: Tensor, kept: Tensor) -> Tensor:
    """Blend pictures (B, 3, H, W) with gray, but for the places (H, W) that are kept."""
    return pictures.where(kept, 0.35 * pictures + 0.325)
