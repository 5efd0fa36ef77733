"""Surfaces of planted cues: a palette, patterns of two tones, and noise for backgrounds."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from xcam.data.planted.silhouettes import rotate

__all__ = ["PALETTE", "PATTERNS", "draw_noise"]

Pattern = Callable[[Tensor, Tensor], Tensor]

PALETTE = torch.tensor(
    [
        colorsys.hsv_to_rgb(step / 8, saturation, value)
        for saturation, value in ((0.95, 0.95), (0.9, 0.45), (0.4, 1.0))
        for step in range(8)
    ]
)
"""(24, 3) colors in [0, 1]: eight hues, vivid first, then dark, then pale."""


def _wave(position: Tensor) -> Tensor:
    return torch.sin(2 * math.pi * position) >= 0


def _stripes(degrees: float, period: float) -> Pattern:
    return lambda x, y: _wave(rotate(x, y, math.radians(degrees))[0] / period)


def _checks(degrees: float, period: float) -> Pattern:
    def pattern(x: Tensor, y: Tensor) -> Tensor:
        u, v = rotate(x, y, math.radians(degrees))
        return _wave(u / period) ^ _wave(v / period)

    return pattern


def _dots(period: float, radius: float) -> Pattern:
    def pattern(x: Tensor, y: Tensor) -> Tensor:
        u, v = (torch.remainder(axis, period) - period / 2 for axis in (x, y))
        return torch.hypot(u, v) <= radius * period

    return pattern


def _lattice(period: float, width: float) -> Pattern:
    return lambda x, y: (
        (torch.remainder(x, period) < width * period)
        | (torch.remainder(y, period) < width * period)
    )


def _zigzag(degrees: float, period: float) -> Pattern:
    def pattern(x: Tensor, y: Tensor) -> Tensor:
        u, v = rotate(x, y, math.radians(degrees))
        return _wave((v + (torch.remainder(u, period) - period / 2).abs()) / period)

    return pattern


def _rings(period: float) -> Pattern:
    return lambda x, y: _wave(torch.hypot(x, y) / period)


PATTERNS: tuple[Pattern, ...] = (
    _stripes(0, 0.5),
    _stripes(90, 0.5),
    _checks(0, 0.8),
    _dots(0.5, 0.3),
    _stripes(45, 0.5),
    _stripes(135, 0.5),
    _lattice(0.6, 0.3),
    _rings(0.5),
    _zigzag(0, 0.6),
    _checks(45, 0.8),
    _stripes(0, 1.0),
    _stripes(90, 1.0),
    _dots(0.8, 0.35),
    _stripes(45, 1.0),
    _stripes(135, 1.0),
    _rings(0.9),
    _zigzag(90, 0.6),
    _lattice(0.9, 0.2),
    _checks(0, 0.45),
    _stripes(22.5, 0.5),
    _stripes(67.5, 0.5),
    _stripes(112.5, 0.5),
    _stripes(157.5, 0.5),
    _zigzag(45, 0.6),
)
"""Functions of x and y, in units of the figure's radius, that return which of two tones."""


def draw_noise(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw nearly gray clouds of every size: a background (3, H, W) in [0, 1] without edges.

    Random grids of 2, 4, 8, … cells on the longer side, each enlarged bilinearly and half as
    strong as the one before, around a random mean color.
    """
    longer = max(size)
    clouds = torch.zeros(1, 3, *size)
    for octave in range(1, int(math.log2(longer))):
        cells = [max(2, round(side * 2**octave / longer) + 1) for side in size]
        gray, tint = (torch.rand(1, bands, *cells, generator=generator) - 0.5 for bands in (1, 3))
        layer = F.interpolate(gray + 0.3 * tint, size, mode="bilinear", align_corners=True)
        clouds += layer / 2 ** (octave - 1)
    gray, tint = (torch.rand(1, bands, 1, 1, generator=generator) - 0.5 for bands in (1, 3))
    return (0.5 + 0.4 * gray + 0.15 * tint + 0.6 * clouds)[0].clamp(0, 1)
