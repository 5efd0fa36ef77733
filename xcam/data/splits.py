"""The parts of a data set: to train on, to choose by, to report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from torch.utils.data import Dataset, Subset

from xcam.core.instantiate import check_names
from xcam.data.transforms import Pipeline

__all__ = ["Splits", "held_out", "with_transforms"]


@dataclass(frozen=True, eq=False, repr=False)
class Splits:
    """The parts of a data set, each a map-style data set of `(image, label)`, or None.

    An image is (C, H, W) float32 in [0, 1]; a label is an int from 0.

    Attributes:
        train: With the transforms of training.
        validation: With those of testing.
        test: With those of testing.
        classes: The names of the classes, in the order of the labels, as far as they are known.
    """

    train: Dataset[Any] | None
    validation: Dataset[Any] | None
    test: Dataset[Any] | None
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        """The number of images of each part: `Splits(train=48000, …, classes=10)`."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        sizes = (f"{name}={None if part is None else _size(part)}" for name, part in parts.items())
        return f"Splits({', '.join(sizes)}, classes={len(self.classes)})"


def with_transforms(found: Splits, train: Pipeline, test: Pipeline) -> Splits:
    """The parts of a data set whose images are still bytes, each with its transforms."""
    return Splits(
        train=_with(found.train, train),
        validation=_with(found.validation, test),
        test=_with(found.test, test),
        classes=found.classes,
    )


def held_out(found: Splits, settings: Mapping[str, Any], test: Pipeline) -> Splits:
    """The parts of a data set with some of the training images held out for validation.

    All their indices are shuffled by `numpy.random.RandomState(seed)`; the first `fraction` of
    them, rounded down, are the part for validation, the others the one for training.

    Args:
        found: The parts as they are.
        settings: `fraction`, in (0, 1), and `seed`, 0 if it is not given.
        test: The transforms of the images that are held out.

    Raises:
        TypeError: The settings are no mapping, or lack the fraction, or hold something else.
        ValueError: A setting is out of its range, or a part is missing, there already, or empty.
    """
    fraction, seed = _checked(settings)
    if found.train is None or found.validation is not None:
        trouble = "has no part for training" if found.train is None else "has one on disk"
        raise ValueError(f"no validation part can be cut, as the data set {trouble}: leave it out")
    order = np.arange(_size(found.train))
    np.random.RandomState(seed).shuffle(order)
    count = int(fraction * len(order))
    if not 0 < count < len(order):
        raise ValueError(f"a fraction of {fraction} of {len(order)} images leaves a part empty")
    return dataclasses.replace(
        found,
        train=Subset(found.train, order[count:].tolist()),
        validation=Subset(cast(Dataset[Any], _with(found.train, test)), order[:count].tolist()),
    )


def _checked(settings: Mapping[str, Any]) -> tuple[float, int]:
    if not isinstance(settings, Mapping) or "fraction" not in settings:
        raise TypeError(
            "validation must be a mapping such as {'fraction': 0.2, 'seed': 223}, "
            f"got {settings!r}"
        )
    check_names("validation", settings, ["fraction", "seed"])
    fraction, seed = settings["fraction"], settings.get("seed", 0)
    if not isinstance(fraction, float) or not 0 < fraction < 1:
        raise ValueError(f"the fraction for validation must be between 0 and 1, got {fraction!r}")
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"the seed for validation must be an int from 0, got {seed!r}")
    return fraction, seed


def _size(data: Dataset[Any]) -> int:
    return len(cast(Sized, data))


def _with(data: Dataset[Any] | None, transform: Pipeline) -> Dataset[Any] | None:
    return None if data is None else dataclasses.replace(data, transform=transform)  # type: ignore[type-var]
