"""What is removed from images: ranks of elements, exact counts, and what replaces them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset

from xcam import imaging
from xcam._roar.images import CACHED_VALUES, PlainImages, restore
from xcam.metrics.removal.imputation import impute
from xcam.metrics.removal.pixels import draw_order, level, rank_values

__all__ = ["FILLS", "MODES", "RANKS", "UNITS", "MaskedImages", "Mode", "Ranking", "Removal"]

Mode: TypeAlias = Literal["remove", "keep"]
MODES, UNITS = ("remove", "keep"), ("pixel", "element")
FILLS, RANKS = ("channel_mean", "zero", "linear"), ("signed", "abs", "square")


@dataclass(frozen=True)
class Removal:
    """How the values of maps become ranks, and ranks become masked images.

    Attributes:
        unit: `"pixel"`, or `"element"` for each channel of a pixel by itself.
        fill: What replaces what is removed: `"channel_mean"` of the training images, `"zero"`, or
            `"linear"`, imputed from its neighbors.
        rank: By the values as they are, by their magnitude, or by their square.
        rounds_up: Whether a fraction of the elements is rounded up, as White Box does, not down.
        seed: Of the order of equal values.
    """

    unit: str
    fill: str
    rank: str
    rounds_up: bool
    seed: int

    def count_elements(self, size: tuple[int, int, int]) -> int:
        """Return how many elements of an image (C, H, W) are ranked."""
        channels, height, width = size
        return height * width * (channels if self.unit == "element" else 1)

    def count(self, fraction: float, elements: int) -> int:
        """Return how many of an image's elements a fraction of them is."""
        exact = fraction * elements
        return math.ceil(exact - 1e-6) if self.rounds_up else math.floor(exact + 1e-6)

    def check_fractions(self, fractions: Sequence[float], size: tuple[int, int, int]) -> None:
        """Refuse fractions that are none, or all, of the elements of an image (C, H, W).

        Raises:
            ValueError: There is one.
        """
        elements = self.count_elements(size)
        for fraction in fractions:
            count = self.count(fraction, elements)
            if count in (0, elements):
                raise ValueError(
                    f"a fraction of {fraction} is {count} of an image's {elements} {self.unit}s, "
                    "and both ends are measured anyway; give fractions between them"
                )

    def rank_elements(self, maps: Tensor, images: Tensor, sigma: float = 0.0) -> Tensor:
        """Return the rank of each element, 0 for the highest, (B, H, W) or (B, C, H, W).

        Equal values are ordered at random, by the seed and the image.

        Args:
            maps: (B, h, w), or (B, C, H, W) with a value for each element.
            images: (B, C, H, W).
            sigma: Of a Gaussian, in pixels, that blurs the maps first.
        """
        height, width = images.shape[-2:]
        values = maps.float()[:, None] if maps.ndim == 3 else maps.float()
        values = imaging.resize(values.flatten(0, 1), (height, width)).view(
            *values.shape[:2], height, width
        )
        values = imaging.blur(values, sigma)
        if self.rank != "signed":  # squares of small numbers would be equal in float32
            values = values.abs()
        values = level(values)
        if self.unit == "element":
            values = values.expand(images.shape)
        count = values[0].numel()
        order = draw_order(images, count, "random", self.seed)
        ranks = rank_values(values, order).to(torch.int16 if count < 2**15 else torch.int32)
        return ranks if self.unit == "element" else ranks[:, 0]

    def fill_in(self, images: Tensor, removed: Tensor, channel_mean: Tensor) -> Tensor:
        """Return images whose removed elements are replaced.

        Args:
            images: (B, C, H, W).
            removed: (B, H, W), or (B, C, H, W), bool.
            channel_mean: (C, 1, 1), of the training images.
        """
        if self.fill != "linear":
            removed = removed if removed.ndim == 4 else removed[:, None]
            value = images.new_zeros(()) if self.fill == "zero" else channel_mean
            return torch.where(removed, value, images)
        if removed.ndim == 3:
            return impute(images, removed)
        return impute(images.flatten(0, 1)[:, None], removed.flatten(0, 1)).view(images.shape)


@dataclass(frozen=True, eq=False)
class Ranking:
    """The ranks of all images' elements by the maps of a method.

    They are computed once where they fit into memory, and whenever they are needed elsewhere.

    Attributes:
        removal: How maps are ranked.
        images: Whose elements are ranked.
        load_maps: Returns the maps of some images.
        sigma: Of a Gaussian, in pixels, that blurs the maps first.
    """

    removal: Removal
    images: PlainImages
    load_maps: Callable[[Sequence[int]], Tensor] = field(repr=False)
    sigma: float = 0.0

    def load(self, indices: Sequence[int]) -> Tensor:
        """Return the ranks of some images, (B, H, W) or (B, C, H, W)."""
        if self._all is not None:
            return self._all[torch.as_tensor(indices)]
        return self._compute(indices)

    @cached_property
    def _all(self) -> Tensor | None:
        count = len(self.images)
        if count * self.removal.count_elements(self.images.size) > CACHED_VALUES:
            return None
        starts = range(0, count, 256)
        return torch.cat([self._compute(range(s, min(s + 256, count))) for s in starts])

    def _compute(self, indices: Sequence[int]) -> Tensor:
        images = self.images.load(indices)
        return self.removal.rank_elements(self.load_maps(indices), images, self.sigma)


@dataclass(frozen=True, eq=False)
class MaskedImages(Dataset[tuple[Any, int]]):
    """A data set of `(image, label)` whose images are masked before they are transformed.

    Attributes:
        images: The images as they are.
        removal: What replaces the elements that are removed.
        channel_mean: (C, 1, 1), of the training images.
        ranking: Of their elements; None removes nothing, or everything.
        mode: Whether the highest elements are removed, or kept.
        count: How many these are.
    """

    images: PlainImages
    removal: Removal
    channel_mean: Tensor
    ranking: Ranking | None
    mode: Mode
    count: int

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the item `(image, label)`, masked and then transformed.

        Raises:
            IndexError: There is no such item.
        """
        index = range(len(self))[index]
        image, given, transform = self.images.read(index)
        masked = self._mask(image[None], [index])[0]
        label = int(self.images.labels[index])
        return (masked if transform is None else transform(restore(masked, given))), label

    @property
    def removes_any(self) -> bool:
        """Return whether anything may be missing from the images."""
        return self.ranking is not None or (self.mode == "remove") != (self.count == 0)

    @property
    def labels(self) -> list[int]:
        """Return the label of every image."""
        found: list[int] = self.images.labels.tolist()
        return found

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes; empty if unknown."""
        return self.images.categories

    @property
    def load_batch(self) -> Callable[[Sequence[int]], list[tuple[Tensor, int]]] | None:
        """Return what loads many items at once, where nothing is drawn for any of them."""
        return self._load_batch if self.images.is_fixed else None

    def _load_batch(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        masked = self._mask(self.images.load(indices), indices)
        labels = self.images.labels[torch.as_tensor(indices)].tolist()
        return list(zip(masked, labels, strict=True))

    def _mask(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        removes = self.mode == "remove"
        if not self.removes_any:
            return images
        if self.ranking is None:
            removed = torch.ones(len(images), *self.images.size[1:], dtype=torch.bool)
        else:
            ranks = self.ranking.load(indices)
            removed = ranks < self.count if removes else ranks >= self.count
        return self.removal.fill_in(images, removed, self.channel_mean)
