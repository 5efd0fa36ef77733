"""Mosaics of 2×2 images, two of a class and two of others: what Focus asks methods about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from xcam.data.datasets import list_labels

__all__ = ["Mosaics", "mosaics"]


def mosaics(
    data: Dataset[Any],
    count: int,
    *,
    labels: Sequence[int] | Tensor | None = None,
    seed: int = 0,
) -> Mosaics:
    """Make a data set of mosaics: two images of a class and two of others, and where the two are.

    An item is `(image, label, mask)`: (C, 2H, 2W), the class as an int, and (2H, 2W) bool, true on
    the two tiles of that class. An explanation of the class should fall on these (Arias-Duart et
    al., 2022, arXiv:2109.15035); the metric `focus` measures it. Which images are taken, and where
    they stand, depends on the settings and the item's index alone. Classes take turns. A net of a
    fixed input size needs tiles of half that size.

    Args:
        data: A map-style data set of `(image, label, …)`, its images (C, H, W) tensors of one size.
        count: The number of mosaics.
        labels: The class of each image; None for those that the data set lists, or, where it lists
            none, those of its items, all of which are then read once.
        seed: The seed of the choice.

    Raises:
        ValueError: Not one label an image, no class with two images, or fewer than two images of
            other classes.
    """
    size = len(cast(Any, data))
    if labels is None:
        listed = list_labels(data)
        labels = cast(Any, listed) or [int(data[index][1]) for index in range(size)]
    known = torch.as_tensor(labels)
    if known.shape != (size,) or known.is_floating_point():
        raise ValueError(f"labels must be one int for each of {size} images, got {known.shape}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    frequencies = Counter(known.tolist())
    classes = [label for label, own in sorted(frequencies.items()) if 2 <= own <= size - 2]
    if not classes:
        raise ValueError(
            "a mosaic takes two images of one class and two of others, got "
            f"{size} images of {len(frequencies)} classes; give more images"
        )
    return Mosaics(data, count, tuple(known.tolist()), tuple(classes), seed)


@dataclass(frozen=True, eq=False, repr=False)
class Mosaics(Dataset[tuple[Tensor, int, Tensor]]):
    """The data set that `mosaics` returns.

    Attributes:
        data: What the tiles are taken from.
        count: The number of mosaics.
        labels: The class of each image of `data`.
        classes: Those of which there are mosaics.
        seed: The seed of the choice.
    """

    data: Dataset[Any]
    count: int
    labels: tuple[int, ...]
    classes: tuple[int, ...]
    seed: int

    def __len__(self) -> int:
        """Return the number of mosaics."""
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        """Return the item `(image, label, mask)`.

        Raises:
            IndexError: There is no such item.
            ValueError: The images of a mosaic are not of one size.
        """
        if not -self.count <= index < self.count:
            raise IndexError(f"index {index} is out of range for {self.count} mosaics")
        index %= self.count
        label = self.classes[index % len(self.classes)]
        tiles = self._choose(label, np.random.default_rng([self.seed, index]))
        images = [self.data[tile][0] for tile in tiles]
        shapes = {tuple(image.shape) for image in images}
        if len(shapes) > 1:
            raise ValueError(f"tiles must be images of one size, got {sorted(shapes)}: resize them")
        masks = [
            torch.full(image.shape[-2:], self.labels[tile] == label)
            for tile, image in zip(tiles, images, strict=True)
        ]
        return _arrange(images), label, _arrange(masks)

    def _choose(self, label: int, generator: np.random.Generator) -> list[int]:
        """Return the numbers of two images of a class and two of others, in random order."""
        is_own = np.asarray(self.labels) == label
        groups = (np.flatnonzero(is_own), np.flatnonzero(~is_own))
        chosen = [generator.choice(group, 2, replace=False) for group in groups]
        order: list[int] = generator.permutation(np.concatenate(chosen)).tolist()
        return order


def _arrange(tiles: list[Tensor]) -> Tensor:
    """Join four tiles (…, H, W), row by row, to one (…, 2H, 2W)."""
    rows = (torch.cat(tiles[:2], -1), torch.cat(tiles[2:], -1))
    return torch.cat(rows, -2)
