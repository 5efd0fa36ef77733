"""The images of a data set before its transform, where masks act, and what its transform makes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms.v2.functional import to_pil_image

from xcam._fit.order import seed_item
from xcam._fit.source import check_loader
from xcam._roar.transforms import NORMALIZE, list_transforms, set_transform_apart
from xcam.data import datasets
from xcam.data.categories import list_categories
from xcam.data.items import read_item
from xcam.data.joining import number_parts_alike
from xcam.engine import random_states
from xcam.runs import manifest

__all__ = ["CACHED_VALUES", "PlainImages", "check_range", "read_loader", "restore"]

CACHED_VALUES = 2**28
"""Values, of images or of ranks, that are held in memory at most."""

_SAMPLED = 64  # images that stand for all where these do not fit into memory
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
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
        has_bytes: Whether a masked image becomes bytes again, for its transform.
        pixels: All images, (N, C, H, W), as they are read; None where they are too many.
    """

    name: str
    dataset: Dataset[Any]
    ids: Sequence[str]
    categories: tuple[str, ...]
    labels: Tensor
    size: tuple[int, int, int]
    is_fixed: bool
    has_bytes: bool
    pixels: Tensor | None = field(repr=False)

    @classmethod
    def open(cls, data: Any, name: str) -> PlainImages:  # noqa: ANN401 - any with items by number
        """Open a data set, or that of a loader, and read it once where it fits into memory.

        Raises:
            TypeError: It is no map-style data set of `(image, label)`.
            ValueError: Images of several sizes, not in [0, 1], or not the same each time; a
                transform that normalizes; or a loader that `read_loader` refuses.
        """
        if isinstance(data, DataLoader):
            read_loader(data, name)
            data = data.dataset
        count = datasets.count_items(data, name, "a data set with a length and items by number")
        if count == 0:
            raise ValueError(f"{name} holds no images")
        data = number_parts_alike(data)
        bare = set_transform_apart(data)
        with random_states():
            seed_item("plain", 0)
            first, _, given, transform = _read(bare, 0, name)
            seed_item("plain", 1)
            again, *_ = _read(bare, 0, name)
        if not torch.equal(first, again):
            raise ValueError(f"image 0 of {name} is another one each time it is read; {_PURE}")
        check_range(first, 0, name)
        found = cls(
            name,
            bare,
            datasets.list_ids(data),
            list_categories(data),
            torch.empty(0, dtype=torch.int64),
            tuple(first.shape),  # type: ignore[arg-type]  # checked to have three axes
            transform is None,
            not (isinstance(given, Tensor) and given.is_floating_point()),
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

    def take(self, count: int) -> PlainImages:
        """Return the first images, as data of their own."""
        pixels = None if self.pixels is None else self.pixels[:count]
        return replace(self, ids=self.ids[:count], labels=self.labels[:count], pixels=pixels)

    def describe(self) -> dict[str, Any]:
        """Return, as JSON, what tells these images from others: hashes, and the transform.

        Where the images do not fit into memory, 64 of them stand for all.
        """
        count, whole = len(self), self.pixels
        if whole is None:
            whole = self.load(sorted({n * (count - 1) // (_SAMPLED - 1) for n in range(_SAMPLED)}))
        pixels = (("pixels", part) for part in torch.split(whole, 1024))
        return {
            "images": count,
            "size": list(self.size),
            "ids": manifest.digest(name.encode() for name in self.ids),
            "labels": manifest.digest(manifest.iterate_bytes([("labels", self.labels)])),
            "pixels": manifest.digest(manifest.iterate_bytes(pixels)),
            "transform": [_ADDRESS.sub("", repr(one)) for one in list_transforms(self.dataset)],
        }

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
            check_range(image, index, self.name)
            if keep:
                pixels = image.new_empty((len(self), *self.size)) if pixels is None else pixels
                pixels[index] = image
            labels[index] = label
            fixed = fixed and transform is None
        return replace(self, labels=labels, pixels=pixels, is_fixed=fixed)


def read_loader(loader: DataLoader[Any], name: str) -> dict[str, Any]:
    """Return the settings of `fit` that a loader of training images brings.

    Raises:
        ValueError: It chooses, repeats or groups images by itself, or has a collation of its own.
    """
    check_loader(loader, name)
    if loader.collate_fn is not default_collate:
        raise ValueError(
            f"{name} is a loader with a collate_fn, which cannot act on masked images; give its "
            "data set, with what the function does as the `transform`"
        )
    found = {"batch_size": loader.batch_size}
    found |= {"drop_last": True} if loader.drop_last else {}
    return found | ({"workers": loader.num_workers} if loader.num_workers else {})


def check_range(image: Tensor, index: int, name: str, slack: float = 0.1) -> None:
    """Refuse an image of floats that are not in [0, 1]; a little beyond it may be resizing.

    Raises:
        ValueError: It has values that are further beyond, or no numbers.
    """
    if not image.is_floating_point() or not image.numel():
        return
    low, high = image.aminmax()
    if not (low >= -slack and high <= 1 + slack):
        raise ValueError(
            f"image {index} of {name} has values from {low:.3g} to {high:.3g}, and masks act on "
            f"images in [0, 1]: scale them, and {NORMALIZE}"
        )


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
