"""The splits of a data set: training, validation, test."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from torch.utils.data import Dataset, Subset

from xcam.core.instantiate import check_names
from xcam.data.transforms import Pipeline

__all__ = ["Splits", "apply_transforms", "hold_out"]


@dataclass(frozen=True, eq=False, repr=False)
class Splits:
    """The splits of a data set, each a map-style data set of `(image, label)`, or None.

    An image is (C, H, W) float32 in [0, 1]; a label is an int from 0, or of images that show
    several classes (K,) bool.

    Attributes:
        train: The training split, with the transforms of training.
        validation: The validation split, with the transforms of testing.
        test: The test split, with the transforms of testing.
        classes: The names of the classes in the order of the labels; empty if unknown.
    """

    train: Dataset[Any] | None
    validation: Dataset[Any] | None
    test: Dataset[Any] | None
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        """Return the number of images of each split: `Splits(train=48000, …, classes=10)`."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        sizes = (f"{name}={None if part is None else _size(part)}" for name, part in parts.items())
        return f"Splits({', '.join(sizes)}, classes={len(self.classes)})"


def apply_transforms(splits: Splits, train: Pipeline, test: Pipeline) -> Splits:
    """Return the splits with the given transforms in place of their own."""
    return Splits(
        train=_transform(splits.train, train),
        validation=_transform(splits.validation, test),
        test=_transform(splits.test, test),
        classes=splits.classes,
    )


def hold_out(splits: Splits, settings: Mapping[str, Any], test: Pipeline) -> Splits:
    """Return the splits with some of the training images held out for validation.

    The training indices are shuffled by `numpy.random.RandomState(seed)`; the first `fraction` of
    them, rounded down, are held out.

    Args:
        splits: The splits, without one for validation.
        settings: `fraction`, in (0, 1), and optionally `seed`, by default 0.
        test: The transforms of the held-out images.

    Raises:
        TypeError: The settings are not a mapping, lack the fraction, or hold an unknown key.
        ValueError: A setting is out of its range, there is no training split, there is a validation
            split already, or a split would be empty.
    """
    fraction, seed = _check_settings(settings)
    if splits.train is None or splits.validation is not None:
        reason = "has no training split" if splits.train is None else "has one on disk"
        raise ValueError(
            f"no validation split can be held out, as the data set {reason}; leave out validation"
        )
    order = np.arange(_size(splits.train))
    np.random.RandomState(seed).shuffle(order)
    count = int(fraction * len(order))
    if not 0 < count < len(order):
        raise ValueError(f"a fraction of {fraction} of {len(order)} images leaves a split empty")
    return dataclasses.replace(
        splits,
        train=Subset(splits.train, order[count:].tolist()),
        validation=Subset(
            cast(Dataset[Any], _transform(splits.train, test)), order[:count].tolist()
        ),
    )


def _check_settings(settings: Mapping[str, Any]) -> tuple[float, int]:
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


def _transform(data: Dataset[Any] | None, transform: Pipeline) -> Dataset[Any] | None:
    return None if data is None else dataclasses.replace(data, transform=transform)  # type: ignore[type-var]
