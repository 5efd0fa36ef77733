"""Planted cues: images in which it is known, to the pixel, what decides the class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from xcam.data.planted.silhouettes import SILHOUETTES, blob, turned
from xcam.data.planted.textures import PALETTE, PATTERNS, noise

__all__ = ["PlantedCues", "planted_cues"]

Mode: TypeAlias = Literal["shape", "texture", "color"]

_FIGURES, _TILT = tuple(SILHOUETTES.values()), math.radians(12)
# Of the image's area; more, and there are too few layouts without an overlap to draw one.
_MOST_COVERED = 0.4
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
    """Images with a class-deciding object, the cue, at a random place, and its exact mask.

    An item is `(image, label, mask)`: (3, H, W) float32 in [0, 1], an int, and (H, W) bool, true
    on the cue. It is a function of the settings and its index alone. Labels take turns, so that
    classes are equally frequent. Objects do not overlap, and nothing but the cue depends on the
    label.

    - `mode="shape"`: a class is a silhouette, in any colour, turned by up to 12°; distractors are
      wobbly discs. What a map hides of a cue leaves a hole of that class's silhouette.
    - `mode="texture"`: all objects are discs; a class is a pattern of two tones of any colour,
      distractors are plain. A hole tells nothing of the class.
    - `mode="color"`: all objects are discs; a class is a colour, distractors are grey.

    With `cues=2` every image holds cues of two different classes and is there twice in a row,
    under the same id: with the label and the mask of the one, then of the other. A method that is
    class-specific finds each in its turn.

    Args:
        count: How many different images.
        size: (H, W) in pixels, or one number for a square; at least 32.
        num_classes: How many, at least 2; up to 24 (in mode `"color"`, as many as `colors`).
        mode: What tells the classes apart.
        seed: Of everything that is drawn.
        background: `"noise"`, generated clouds, or real textures (N, 3, h, w) in [0, 1], at least
            as large as the images: one is chosen at random, mirrored or not, and cropped.
        distractors: How many objects beside the cues, of no class.
        cues: How many cues of different classes an image holds.
        extent: The least and the greatest diameter of an object, of the shorter side.
        colors: (K, 3) in [0, 1], what objects are painted with; class k is `colors[k]` in mode
            `"color"`. None for 24 of xcam's own.

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
    """The data set that `planted_cues` returns; its attributes are the settings, all resolved."""

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
        """The name of each item's image; the items of one image share it."""
        return [f"{index // self.cues:06d}" for index in range(len(self))]

    def __len__(self) -> int:
        """The number of items: `count` images times `cues`."""
        return self.count * self.cues

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        """The item `(image, label, mask)`.

        Raises:
            IndexError: There is no such item.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of a data set of {len(self)}")
        picture, cue = divmod(index % len(self), self.cues)
        labels = self._labels(picture)
        image, masks = self._draw(labels, _generator(self.seed, picture, 0))
        return image, labels[cue], masks[cue]

    def _labels(self, picture: int) -> list[int]:
        # Drawn apart: what else is in the image depends neither on the labels nor their number.
        others = torch.randperm(self.num_classes - 1, generator=_generator(self.seed, picture, 1))
        first = picture % self.num_classes
        return [first, *((first + 1 + others[: self.cues - 1]) % self.num_classes).tolist()]

    def _draw(self, labels: list[int], generator: torch.Generator) -> tuple[Tensor, list[Tensor]]:
        """The image, and the masks of the objects: the cues first, then the distractors."""
        image = self._backdrop(generator)
        masks = []
        kinds: list[int | None] = [*labels, *[None] * self.distractors]
        layout = _layout(len(kinds), self.size, self.extent, generator)
        for label, (top, left, radius) in zip(kinds, layout, strict=True):
            rows, columns = (torch.arange(side, dtype=torch.float32) for side in self.size)
            y, x = torch.meshgrid((rows - top) / radius, (columns - left) / radius, indexing="ij")
            mask = self._silhouette(label, x, y, generator) & (torch.hypot(x, y) <= 1)
            image = torch.where(mask, self._surface(label, x, y, generator), image)
            masks.append(mask)
        return image, masks

    def _silhouette(
        self, label: int | None, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor:
        if self.mode != "shape":
            return SILHOUETTES["disc"](x, y)
        tilt = _uniform(generator, -_TILT, _TILT)
        if label is None:
            return blob(x, y, generator)
        return _FIGURES[label](*turned(x, y, tilt))

    def _surface(
        self, label: int | None, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Colours (3, H, W), or (3, 1, 1) for a plain surface."""
        chosen = int(torch.randint(len(self.colors), (), generator=generator))
        shift = 0.5 * torch.rand(2, generator=generator) - 0.25
        if self.mode == "color" and label is None:
            return _uniform(generator, 0.2, 0.8) * torch.ones(3, 1, 1)
        color = self.colors[label if self.mode == "color" and label is not None else chosen]
        color = color[:, None, None]
        if self.mode != "texture":
            return color
        dark = 0.25 * color
        if label is None:
            return (color + dark) / 2
        light = PATTERNS[label](x + float(shift[0]), y + float(shift[1]))
        return torch.where(light, color, dark)

    def _backdrop(self, generator: torch.Generator) -> Tensor:
        if not isinstance(self.background, Tensor):
            return noise(self.size, generator)
        textures, (height, width) = self.background, self.size
        limits = (len(textures), textures.shape[2] - height + 1, textures.shape[3] - width + 1, 2)
        which, top, left, mirrored = (
            int(torch.randint(limit, (), generator=generator)) for limit in limits
        )
        crop = textures[which, :, top : top + height, left : left + width].float()
        return crop.flip(2) if mirrored else crop


def _generator(seed: int, picture: int, stream: int) -> torch.Generator:
    """One of its own for every image, so that an item depends on no other."""
    (state,) = np.random.SeedSequence([seed, picture, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state))


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _layout(
    objects: int, size: tuple[int, int], extent: tuple[float, float], generator: torch.Generator
) -> list[tuple[float, float, float]]:
    """Centres and radii (top, left, radius), in pixels, of discs that do not overlap."""
    while (discs := _placed(objects, size, extent, generator)) is None:
        pass
    return discs


def _placed(
    objects: int, size: tuple[int, int], extent: tuple[float, float], generator: torch.Generator
) -> list[tuple[float, float, float]] | None:
    """Discs drawn one after the other, each uniformly over what is still free, if anything is."""
    discs: list[tuple[float, float, float]] = []
    for _ in range(objects):
        radius = _uniform(generator, *extent) * min(size) / 2
        free = _free(discs, size, radius).nonzero()
        if len(free) == 0:
            return None
        top, left = free[int(torch.randint(len(free), (), generator=generator))].tolist()
        discs.append((float(top), float(left), radius))
    return discs


def _free(
    discs: Sequence[tuple[float, float, float]], size: tuple[int, int], radius: float
) -> Tensor:
    """Where the centre of one more disc may lie, (H, W) bool; two pixels stay between discs."""
    rows, columns = (torch.arange(side, dtype=torch.float32) for side in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    inside = (y >= radius) & (x >= radius) & (y < size[0] - radius) & (x < size[1] - radius)
    for top, left, other in discs:
        inside &= torch.hypot(y - top, x - left) > radius + other + 2
    return inside


def _check(data: PlantedCues) -> None:
    """Refuses settings that cannot be drawn, before any item is."""
    if data.mode not in get_args(Mode):
        raise ValueError(f"mode must be 'shape', 'texture' or 'colour', got {data.mode!r}")
    if len(data.size) != 2 or min(data.size) < 32:
        raise ValueError(f"size must be at least 32 pixels a side, got {data.size!r}")
    _check_colors(data.colors)
    most = {"shape": len(_FIGURES), "texture": len(PATTERNS), "color": len(data.colors)}
    for name, value, low, high in (
        ("count", data.count, 1, None),
        ("seed", data.seed, 0, None),
        ("num_classes", data.num_classes, 2, most[data.mode]),
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
        raise ValueError(f"colours must be (K, 3), got {shape}")
    if not bool(((colors >= 0) & (colors <= 1)).all()):
        raise ValueError("colours must lie in [0, 1]")


def _check_extent(data: PlantedCues) -> None:
    low, high = data.extent
    if not 0.1 <= low <= high <= 0.9:
        raise ValueError(f"extent must be (least, greatest) within [0.1, 0.9], got {data.extent!r}")
    objects = data.cues + data.distractors
    covered = objects * math.pi / 4 * (high * min(data.size)) ** 2 / math.prod(data.size)
    if objects > 1 and covered > _MOST_COVERED:
        raise ValueError(
            f"{objects} objects of up to {high:.0%} of the shorter side would cover {covered:.0%} "
            f"of the image, more than {_MOST_COVERED:.0%}: take fewer distractors or a smaller "
            "extent"
        )
    # Largest objects fit least: if some of these layouts can be drawn, no item is drawn for ever.
    trial, largest = _generator(0, 0, 0), (high, high)
    if not any(_placed(objects, data.size, largest, trial) for _ in range(_TRIALS)):
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
