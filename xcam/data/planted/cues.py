"""The data set of planted cues: images with known pixels that decide the class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from xcam.data.planted.silhouettes import SILHOUETTES, draw_blob, rotate
from xcam.data.planted.textures import PALETTE, PATTERNS, draw_noise

__all__ = ["PlantedCues", "planted_cues"]

Mode: TypeAlias = Literal["shape", "texture", "color"]

_FIGURES, _TILT = tuple(SILHOUETTES.values()), math.radians(12)
# Share of the image's area: above it, layouts without an overlap become too rare to draw.
_MAX_COVERED = 0.4
_TRIALS = 50


def planted_cues(
    count: int,
    size: int | tuple[int, int] = 64,
    num_classes: int = 8,
    mode: Mode = "shape",
    seed: int = 0,
    background: Literal["noise"] | Tensor = "noise",
    distractors: int = 2,
    cues: int = 1,
    extent: tuple[float, float] = (0.25, 0.35),
    colors: Tensor | None = None,
) -> PlantedCues:
    """Make a data set of images with an object that decides the class, the cue, and its mask.

    An item is `(image, label, mask)`: (3, H, W) float32 in [0, 1], an int, and (H, W) bool, true
    on the cue. It depends on the settings and its index alone. Labels alternate, so that classes
    are equally frequent. Objects do not overlap, and nothing but the cue depends on the label.

    - `mode="shape"`: a class is a silhouette, in any color, rotated by up to 12°; distractors are
      wobbly discs. A cue that is masked out leaves a hole of that class's silhouette.
    - `mode="texture"`: all objects are discs; a class is a pattern of two tones of any color,
      distractors are plain. A hole tells nothing about the class.
    - `mode="color"`: all objects are discs; a class is a color, distractors are gray.

    With `cues=2` every image has cues of two different classes and comes twice in a row, under
    the same id: with the label and the mask of the first cue, then of the second. A class-specific
    method should find each.

    Args:
        count: The number of different images.
        size: (H, W) in pixels, or one number for a square; at least 32.
        num_classes: The number of classes, 2 to 24 (in mode `"color"`, to the number of `colors`).
        mode: What distinguishes the classes.
        seed: The seed of everything that is drawn.
        background: `"noise"`, generated clouds, or textures (N, 3, h, w) in [0, 1], at least as
            large as the images: one is chosen at random, mirrored or not, and cropped.
        distractors: The number of objects beside the cues, of no class.
        cues: The number of cues in an image, of different classes.
        extent: The smallest and the largest diameter of an object, as a share of the shorter side.
        colors: The colors of objects, (K, 3) in [0, 1]; class k has `colors[k]` in mode `"color"`.
            None for a palette of 24.

    Raises:
        ValueError: A setting is out of its range; the message says which range.
    """
    sides = (size, size) if isinstance(size, int) else size
    palette = PALETTE if colors is None else colors
    settings = PlantedCues(
        count, sides, num_classes, mode, seed, background, distractors, cues, extent, palette
    )
    _check(settings)
    return settings


@dataclass(frozen=True, eq=False, repr=False)
class PlantedCues(Dataset[tuple[Tensor, int, Tensor]]):
    """The data set that `planted_cues` returns; its attributes are the resolved settings."""

    count: int
    size: tuple[int, int]
    num_classes: int
    mode: Mode
    seed: int
    background: Literal["noise"] | Tensor
    distractors: int
    cues: int
    extent: tuple[float, float]
    colors: Tensor

    @property
    def ids(self) -> list[str]:
        """Return the name of each item's image; the items of one image share it."""
        return [f"{index // self.cues:06d}" for index in range(len(self))]

    def __len__(self) -> int:
        """Return the number of items: `count` images times `cues`."""
        return self.count * self.cues

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        """Return the item `(image, label, mask)`.

        Raises:
            IndexError: There is no such item.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} items")
        picture, cue = divmod(index % len(self), self.cues)
        labels = self._draw_labels(picture)
        image, masks = self._draw(labels, _make_generator(self.seed, picture, 0))
        return image, labels[cue], masks[cue]

    def _draw_labels(self, picture: int) -> list[int]:
        # A stream of its own: all else in the image must not depend on the labels or their number.
        others = torch.randperm(
            self.num_classes - 1, generator=_make_generator(self.seed, picture, 1)
        )
        first = picture % self.num_classes
        return [first, *((first + 1 + others[: self.cues - 1]) % self.num_classes).tolist()]

    def _draw(self, labels: list[int], generator: torch.Generator) -> tuple[Tensor, list[Tensor]]:
        """Return the image, and the masks of its objects: the cues first, then the distractors."""
        image = self._draw_background(generator)
        masks = []
        kinds: list[int | None] = [*labels, *[None] * self.distractors]
        layout = _draw_layout(len(kinds), self.size, self.extent, generator)
        for label, (top, left, radius) in zip(kinds, layout, strict=True):
            rows, columns = (torch.arange(side, dtype=torch.float32) for side in self.size)
            y, x = torch.meshgrid((rows - top) / radius, (columns - left) / radius, indexing="ij")
            mask = self._draw_silhouette(label, x, y, generator) & (torch.hypot(x, y) <= 1)
            image = torch.where(mask, self._draw_surface(label, x, y, generator), image)
            masks.append(mask)
        return image, masks

    def _draw_silhouette(
        self, label: int | None, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor:
        if self.mode != "shape":
            return SILHOUETTES["disc"](x, y)
        tilt = _draw_uniform(generator, -_TILT, _TILT)
        if label is None:
            return draw_blob(x, y, generator)
        return _FIGURES[label](*rotate(x, y, tilt))

    def _draw_surface(
        self, label: int | None, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return colors (3, H, W), or (3, 1, 1) for a plain surface."""
        chosen = int(torch.randint(len(self.colors), (), generator=generator))
        shift = 0.5 * torch.rand(2, generator=generator) - 0.25
        if self.mode == "color" and label is None:
            return _draw_uniform(generator, 0.2, 0.8) * torch.ones(3, 1, 1)
        color = self.colors[label if self.mode == "color" and label is not None else chosen]
        color = color[:, None, None]
        if self.mode != "texture":
            return color
        dark = 0.25 * color
        if label is None:
            return (color + dark) / 2
        light = PATTERNS[label](x + float(shift[0]), y + float(shift[1]))
        return torch.where(light, color, dark)

    def _draw_background(self, generator: torch.Generator) -> Tensor:
        if not isinstance(self.background, Tensor):
            return draw_noise(self.size, generator)
        textures, (height, width) = self.background, self.size
        limits = (len(textures), textures.shape[2] - height + 1, textures.shape[3] - width + 1, 2)
        which, top, left, mirrored = (
            int(torch.randint(limit, (), generator=generator)) for limit in limits
        )
        crop = textures[which, :, top : top + height, left : left + width].float()
        return crop.flip(2) if mirrored else crop


def _make_generator(seed: int, picture: int, stream: int) -> torch.Generator:
    """Return a generator for each image, so that an item depends on no other."""
    (state,) = np.random.SeedSequence([seed, picture, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state))


def _draw_uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _draw_layout(
    objects: int, size: tuple[int, int], extent: tuple[float, float], generator: torch.Generator
) -> list[tuple[float, float, float]]:
    """Return centers and radii (top, left, radius), in pixels, of discs that do not overlap."""
    while (discs := _place_discs(objects, size, extent, generator)) is None:
        pass
    return discs


def _place_discs(
    objects: int, size: tuple[int, int], extent: tuple[float, float], generator: torch.Generator
) -> list[tuple[float, float, float]] | None:
    """Draw discs one by one, each uniformly over what is still free; None if nothing is."""
    discs: list[tuple[float, float, float]] = []
    for _ in range(objects):
        radius = _draw_uniform(generator, *extent) * min(size) / 2
        free = _find_free(discs, size, radius).nonzero()
        if len(free) == 0:
            return None
        top, left = free[int(torch.randint(len(free), (), generator=generator))].tolist()
        discs.append((float(top), float(left), radius))
    return discs


def _find_free(
    discs: Sequence[tuple[float, float, float]], size: tuple[int, int], radius: float
) -> Tensor:
    """Return where the center of another disc may be, (H, W) bool; discs are two pixels apart."""
    rows, columns = (torch.arange(side, dtype=torch.float32) for side in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    inside = (y >= radius) & (x >= radius) & (y < size[0] - radius) & (x < size[1] - radius)
    for top, left, other in discs:
        inside &= torch.hypot(y - top, x - left) > radius + other + 2
    return inside


def _check(data: PlantedCues) -> None:
    """Refuse settings that cannot be drawn."""
    if data.mode not in get_args(Mode):
        raise ValueError(f"mode must be 'shape', 'texture' or 'color', got {data.mode!r}")
    if len(data.size) != 2 or min(data.size) < 32:
        raise ValueError(f"size must be at least 32 pixels a side, got {data.size!r}")
    _check_colors(data.colors)
    limit = {"shape": len(_FIGURES), "texture": len(PATTERNS), "color": len(data.colors)}
    for name, value, low, high in (
        ("count", data.count, 1, None),
        ("seed", data.seed, 0, None),
        ("num_classes", data.num_classes, 2, limit[data.mode]),
        ("cues", data.cues, 1, data.num_classes),
        ("distractors", data.distractors, 0, None),
    ):
        if value < low or (high is not None and value > high):
            wanted = f"at least {low}" if high is None else f"in {low} to {high}"
            raise ValueError(f"{name} must be {wanted} in mode {data.mode!r}, got {value!r}")
    _check_extent(data)
    _check_background(data.background, data.size)


def _check_colors(colors: Tensor) -> None:
    shape = tuple(colors.shape)
    if len(shape) != 2 or shape[1] != 3 or shape[0] == 0:
        raise ValueError(f"colors must be (K, 3), got {shape}")
    if not bool(((colors >= 0) & (colors <= 1)).all()):
        raise ValueError("colors must lie in [0, 1]")


def _check_extent(data: PlantedCues) -> None:
    low, high = data.extent
    if not 0.1 <= low <= high <= 0.9:
        raise ValueError(f"extent must be (least, greatest) within [0.1, 0.9], got {data.extent!r}")
    objects = data.cues + data.distractors
    covered = objects * math.pi / 4 * (high * min(data.size)) ** 2 / math.prod(data.size)
    if objects > 1 and covered > _MAX_COVERED:
        raise ValueError(
            f"{objects} objects of up to {high:.0%} of the shorter side would cover {covered:.0%} "
            f"of the image, more than {_MAX_COVERED:.0%}: take fewer distractors or a smaller "
            "extent"
        )
    # The largest objects fit worst: if they can be placed here, drawing any item ends.
    generator, largest = _make_generator(0, 0, 0), (high, high)
    if not any(_place_discs(objects, data.size, largest, generator) for _ in range(_TRIALS)):
        raise ValueError(
            f"{objects} objects of {high:.0%} of the shorter side, two pixels apart, found no "
            f"place in {_TRIALS} layouts of {data.size[0]}×{data.size[1]} pixels: take fewer "
            "distractors, a smaller extent or larger images"
        )


def _check_background(background: object, size: tuple[int, int]) -> None:
    if isinstance(background, str) and background == "noise":
        return
    if not isinstance(background, Tensor):
        raise ValueError(
            f"background must be 'noise' or a tensor (N, 3, h, w) in [0, 1], got {background!r}"
        )
    shape = tuple(background.shape)
    if len(shape) != 4 or shape[0] == 0 or shape[1] != 3:
        raise ValueError(f"background textures must be (N, 3, h, w), got {shape}")
    if shape[2] < size[0] or shape[3] < size[1]:
        raise ValueError(
            f"background textures of {shape[2]}×{shape[3]} are smaller than the images of "
            f"{size[0]}×{size[1]}: give larger ones"
        )
    lowest, highest = (float(value) for value in background.aminmax())
    if not (background.is_floating_point() and lowest >= 0 and highest <= 1):
        raise ValueError(
            f"background textures must be floating point in [0, 1], got {background.dtype} in "
            f"[{lowest:g}, {highest:g}]"
        )
