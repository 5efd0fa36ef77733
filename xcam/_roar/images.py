"""The images of a data set before its transform, where masks act, and what its transform makes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, default_collate
from torchvision.transforms.v2.functional import to_pil_image

from xcam._fit.order import seed_item
from xcam.data import datasets
from xcam.data.categories import list_categories
from xcam.data.items import read_item
from xcam.data.joining import number_parts_alike
from xcam.data.transforms import Pipeline
from xcam.engine import random_states

__all__ = ["CACHED_VALUES", "PlainImages", "restore"]

CACHED_VALUES = 2**28
"""Values, of images or of ranks, that are held in memory at most."""

_DETERMINISTIC = {
    "CenterCrop",
    "ConvertImageDtype",
    "PILToTensor",
    "Resize",
    "ToDtype",
    "ToImage",
    "ToTensor",
}
_PURE = "give a data set whose images are always the same, with what is random as its `transform`"


@dataclass(frozen=True, eq=False)
class PlainImages:
    """The images of a data set as they are before anything random is done to them.

    The transform of a data set is left out, apart from resizes, center crops and conversions that
    it begins with: masks act on what these give, and all else in it follows.

    Attributes:
        name: What the data set is called in messages.
        dataset: Its items, `(image, label, …, transform)`.
        ids: The name of each image.
        categories: The names of the classes that the labels number; empty if unknown.
        labels: The class of each image, (N,) int64.
        size: (C, H, W) of an image.
        is_fixed: Whether nothing is done to an image after it was masked.
        pixels: All images, (N, C, H, W), as they are read; None where they are too many.
    """

    name: str
    dataset: Dataset[Any]
    ids: Sequence[str]
    categories: tuple[str, ...]
    labels: Tensor
    size: tuple[int, int, int]
    is_fixed: bool
    pixels: Tensor | None = field(repr=False)

    @classmethod
    def open(cls, data: Any, name: str) -> PlainImages:  # noqa: ANN401 - any with items by number
        """Open a data set, or that of a loader, and read it once where it fits into memory.

        Raises:
            TypeError: It is no map-style data set of `(image, label)`.
            ValueError: Images of several sizes, or not the same each time; a transform that
                normalizes.
        """
        data = data.dataset if isinstance(data, DataLoader) else data
        count = datasets.count_items(data, name, "a data set with a length and items by number")
        if count == 0:
            raise ValueError(f"{name} holds no images")
        data = number_parts_alike(data)
        bare = _set_transform_apart(data)
        with random_states():
            seed_item("plain", 0)
            first, _, _, transform = _read(bare, 0, name)
            seed_item("plain", 1)
            again, *_ = _read(bare, 0, name)
        if not torch.equal(first, again):
            raise ValueError(f"image 0 of {name} is another one each time it is read; {_PURE}")
        found = cls(
            name,
            bare,
            datasets.list_ids(data),
            list_categories(data),
            torch.empty(0, dtype=torch.int64),
            tuple(first.shape),  # type: ignore[arg-type]  # checked to have three axes
            transform is None,
            None,
        )
        fits = count * first.numel() <= CACHED_VALUES
        listed = datasets.list_labels(data)
        if fits or listed is None:
            return found._read_all(fits)
        return replace(found, labels=torch.tensor(listed, dtype=torch.int64))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def load(self, indices: Sequence[int]) -> Tensor:
        """Return images (B, C, H, W), float32 in [0, 1] as models take them."""
        if self.pixels is not None:
            return _scale(self.pixels[torch.as_tensor(indices)])
        return torch.stack([self.read(index)[0] for index in indices])

    def read(self, index: int) -> tuple[Tensor, Any, Callable[[Any], Any] | None]:
        """Return an image, (C, H, W) in [0, 1], what it was read as, and what follows masking.

        Raises:
            ValueError: It cannot be read, or has another size than the first one.
        """
        image, _, given, transform = _read(self.dataset, index, self.name)
        if tuple(image.shape) != self.size:
            raise ValueError(
                f"image {index} of {self.name} is {tuple(image.shape)} before the transform, and "
                f"the first one {self.size}: masks need images of one size; begin the transform "
                "with a Resize to (H, W)"
            )
        return _scale(image), given, transform

    def compute_channel_mean(self) -> Tensor:
        """Return the mean of each channel over all images, (C, 1, 1)."""
        total = torch.zeros(self.size[0], dtype=torch.float64)
        for start in range(0, len(self), 1024):
            part = self.load(range(start, min(start + 1024, len(self))))
            total += part.double().mean((2, 3)).sum(0)
        return (total / len(self)).float()[:, None, None]

    def _read_all(self, keep: bool) -> PlainImages:
        """Return these images with their labels and, if they are to be kept, their pixels."""
        labels = torch.empty(len(self), dtype=torch.int64)
        pixels, fixed = None, self.is_fixed
        for index in range(len(self)):
            image, label, _, transform = _read(self.dataset, index, self.name)
            if tuple(image.shape) != self.size:
                self.read(index)  # refuses it
            if keep:
                pixels = image.new_empty((len(self), *self.size)) if pixels is None else pixels
                pixels[index] = image
            labels[index] = label
            fixed = fixed and transform is None
        return replace(self, labels=labels, pixels=pixels, is_fixed=fixed)


class _Bare(Dataset[Any]):
    """A data set whose items end with what is left of its transform.

    Args:
        dataset: Whose transform is its attribute `transform`, or that has none.
    """

    def __init__(self, dataset: Any) -> None:  # noqa: ANN401 - any with items by number
        first, self.then = _split(getattr(dataset, "transform", None))
        self.dataset = dataset
        if callable(getattr(dataset, "transform", None)):
            self.dataset = _replace(dataset, transform=_Apply(first))
            joint = getattr(dataset, "transforms", None)  # of torchvision's, for image and label
            if hasattr(joint, "transform"):
                own = _replace(joint, transform=self.dataset.transform)
                self.dataset.__dict__["transforms"] = own

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        item = self.dataset[index]
        parts = tuple(item) if isinstance(item, list | tuple) else (item,)
        return *parts, self.then


@dataclass(frozen=True)
class _Apply:
    """Steps of a transform, of an image and whatever comes with it."""

    steps: tuple[Any, ...]

    def __call__(self, image: Any, *truth: Any) -> Any:  # noqa: ANN401
        for step in self.steps:
            image = step(image)
        return (image, *truth) if truth else image


def _set_transform_apart(dataset: Any) -> Any:  # noqa: ANN401 - any with items by number
    """Return a data set whose items are not transformed, but end with the transform, or None."""
    if isinstance(dataset, Subset):
        return _replace(dataset, dataset=_set_transform_apart(dataset.dataset))
    if isinstance(dataset, ConcatDataset):
        return _replace(dataset, datasets=list(map(_set_transform_apart, dataset.datasets)))
    inner = getattr(dataset, "data", None)  # of xcam.data.relabel
    if isinstance(inner, Dataset) and not callable(getattr(dataset, "transform", None)):
        return _replace(dataset, data=_set_transform_apart(inner))
    return _Bare(dataset)


def _split(transform: Any) -> tuple[tuple[Any, ...], Callable[[Any], Any] | None]:  # noqa: ANN401
    """Return the steps before masks, and what comes after them; None for nothing.

    Raises:
        ValueError: A step normalizes, which the model is to do.
    """
    steps = getattr(transform, "steps" if isinstance(transform, Pipeline) else "transforms", None)
    if transform is None or not isinstance(steps, list | tuple):
        return (), transform
    names = [type(step).__name__ for step in steps]
    if "Normalize" in names:
        raise ValueError(
            "a transform normalizes the images, and masks act on images in [0, 1]: leave Normalize "
            "out, and wrap the models in xcam.models.Normalized"
        )
    count = next((n for n, name in enumerate(names) if name not in _DETERMINISTIC), len(names))
    if count == len(names):
        return tuple(steps), None
    if isinstance(transform, Pipeline):
        return tuple(steps[:count]), Pipeline(tuple(steps[count:]))
    return tuple(steps[:count]), _replace(transform, transforms=list(steps[count:]))


def _read(
    dataset: Any,  # noqa: ANN401 - any with items by number
    index: int,
    name: str,
) -> tuple[Tensor, int, Any, Callable[[Any], Any] | None]:
    """Return an image, (C, H, W), its label, what it was given as, and what follows masking."""
    item = read_item(dataset, index, name)
    if len(item) < 3:
        raise TypeError(f"an item of {name} must be (image, label), got an image without a label")
    image, label, *_, transform = item
    if datasets.is_several(label):
        raise ValueError(
            f"roar compares accuracies, and image {index} of {name} has several labels; give one "
            "label an image, with xcam.data.relabel"
        )
    if isinstance(image, Image) and image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return _to_tensor(image, name), int(default_collate([label])), image, transform


def _to_tensor(image: Any, name: str) -> Tensor:  # noqa: ANN401 - whatever the data set holds
    if isinstance(image, Image):
        array = np.array(image)
        image = torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))
    if not isinstance(image, Tensor) or image.ndim != 3:
        got = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(
            f"an image of {name} must be a picture or a (C, H, W) tensor before its transform, got "
            f"{got}"
        )
    if not (image.is_floating_point() or image.dtype == torch.uint8):
        raise TypeError(
            f"an image of {name} must be of bytes or of floats in [0, 1], got {image.dtype}"
        )
    return image.as_subclass(Tensor)


def _scale(images: Tensor) -> Tensor:
    return images / 255 if images.dtype == torch.uint8 else images.float()


def restore(image: Tensor, given: Any) -> Any:  # noqa: ANN401 - a tensor or a picture
    """Return an image in [0, 1] as its transform takes it: as the picture or tensor it was."""
    if isinstance(given, Tensor) and given.is_floating_point():
        return image.to(given.dtype)
    values = (image * 255).round().clamp(0, 255).byte()
    return values if isinstance(given, Tensor) else to_pil_image(values)


def _replace(of: Any, /, **attributes: Any) -> Any:  # noqa: ANN401 - data sets, transforms
    """Return a shallow copy with other attributes, also of a frozen dataclass."""
    found = copy.copy(of)
    for name, value in attributes.items():
        object.__setattr__(found, name, value)
    return found
