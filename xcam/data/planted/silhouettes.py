"""Silhouettes of planted cues: plane figures that differ in their outline."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["SILHOUETTES", "draw_blob", "rotate"]

Silhouette = Callable[[Tensor, Tensor], Tensor]


def rotate(x: Tensor, y: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Return the coordinates of a figure rotated by `angle`, in radians, clockwise on screen."""
    cos, sin = math.cos(angle), math.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def draw_blob(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a random outline: a wobbly disc, unlike any of the `SILHOUETTES`."""
    radius, angle = torch.hypot(x, y), torch.atan2(y, x)
    phases = 2 * math.pi * torch.rand(3, generator=generator)
    wobble = sum(torch.sin(lobes * angle + phases[lobes - 2]) for lobes in (2, 3, 4))
    return radius <= 0.7 + 0.1 * wobble


def _polar(outline: Callable[[Tensor], Tensor]) -> Silhouette:
    """Return the figure within the radius `outline(angle)`; angle 0 points up."""
    return lambda x, y: torch.hypot(x, y) <= outline(torch.atan2(x, -y))


def _star(points: int, depth: float) -> Silhouette:
    """Return a star with straight edges and its inner corners at `depth`."""
    half = math.pi / points
    inner = torch.tensor(depth)

    def outline(angle: Tensor) -> Tensor:
        # Between a tip at (1, 0) and the inner corner beside it: a line in polar coordinates.
        off = (torch.remainder(angle + half, 2 * half) - half).abs()
        return inner * math.sin(half) / (torch.sin(half - off) * inner + torch.sin(off))

    return _polar(outline)


def _box(left: float, top: float, right: float, bottom: float) -> Silhouette:
    return lambda x, y: (x >= left) & (x <= right) & (y >= top) & (y <= bottom)


def _union(*figures: Silhouette) -> Silhouette:
    return lambda x, y: torch.stack([figure(x, y) for figure in figures]).any(0)


def _difference(figure: Silhouette, hole: Silhouette) -> Silhouette:
    return lambda x, y: figure(x, y) & ~hole(x, y)


def _rotated(angle: float, figure: Silhouette) -> Silhouette:
    return lambda x, y: figure(*rotate(x, y, angle))


def _disc(radius: float, left: float = 0.0) -> Silhouette:
    return lambda x, y: torch.hypot(x - left, y) <= radius


def _regular(corners: int) -> Silhouette:
    """Return a regular polygon: a star whose inner corners lie on its edges."""
    return _star(corners, math.cos(math.pi / corners))


_PLUS = _union(_box(-0.3, -0.95, 0.3, 0.95), _box(-0.95, -0.3, 0.95, 0.3))
_SQUARE = _box(-0.7, -0.7, 0.7, 0.7)

SILHOUETTES: dict[str, Silhouette] = {
    "disc": _disc(1.0),
    "triangle": _regular(3),
    "plus": _PLUS,
    "ring": _difference(_disc(1.0), _disc(0.55)),
    "bar": _box(-0.95, -0.3, 0.95, 0.3),
    "star": _star(5, 0.38),
    "square": _SQUARE,
    "crescent": _difference(_disc(1.0), _disc(0.8, left=0.5)),
    "pillar": _box(-0.3, -0.95, 0.3, 0.95),
    "hourglass": lambda x, y: (x.abs() <= y.abs()) & (y.abs() <= 0.7),
    "cross": _rotated(math.pi / 4, _PLUS),
    "flower": _polar(lambda angle: 0.7 + 0.3 * torch.cos(6 * angle)),
    "ell": _union(_box(-0.7, -0.7, -0.2, 0.7), _box(-0.7, 0.2, 0.7, 0.7)),
    "arch": _difference(_box(-0.7, -0.7, 0.7, 0.7), _box(-0.3, -0.2, 0.3, 0.8)),
    "bow": lambda x, y: (y.abs() <= x.abs()) & (x.abs() <= 0.7),
    "tee": _union(_box(-0.8, -0.6, 0.8, -0.15), _box(-0.25, -0.6, 0.25, 0.95)),
    "frame": _difference(_SQUARE, _box(-0.35, -0.35, 0.35, 0.35)),
    "dome": lambda x, y: (torch.hypot(x, y - 0.4) <= 0.9) & (y <= 0.4),
    "diamond": _regular(4),
    "clover": _polar(lambda angle: 0.25 + 0.75 * torch.cos(1.5 * angle).abs()),
    "saw": _star(4, 0.3),
    "stripes": _difference(_SQUARE, _box(-0.7, -0.2, 0.7, 0.2)),
    "mouth": _difference(_disc(1.0), lambda x, y: (x > 0) & (y.abs() <= x)),
    "pine": _star(3, 0.25),
}
"""Functions of x (to the right) and y (down), by name; figures lie within the unit disc."""
