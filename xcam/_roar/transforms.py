"""The transform of a data set set apart: what precedes a mask, and what follows it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from xcam.data.transforms import Pipeline

__all__ = ["NORMALIZE", "list_transforms", "set_transform_apart"]

NORMALIZE = "wrap the models in xcam.models.Normalized"
"""What to do instead of normalizing in a transform."""

_DETERMINISTIC = {
    "CenterCrop",
    "ConvertImageDtype",
    "PILToTensor",
    "Resize",
    "ToDtype",
    "ToImage",
    "ToTensor",
}


def set_transform_apart(dataset: Any) -> Any:  # noqa: ANN401 - any with items by number
    """Return a data set whose items are not transformed, but end with the transform, or None."""
    if isinstance(dataset, Subset):
        return _replace(dataset, dataset=set_transform_apart(dataset.dataset))
    if isinstance(dataset, ConcatDataset):
        return _replace(dataset, datasets=list(map(set_transform_apart, dataset.datasets)))
    inner = getattr(dataset, "data", None)  # of xcam.data.relabel
    if isinstance(inner, Dataset) and not callable(getattr(dataset, "transform", None)):
        return _replace(dataset, data=set_transform_apart(inner))
    return _Bare(dataset)


def _split(transform: Any) -> tuple[tuple[Any, ...], Callable[[Any], Any] | None]:  # noqa: ANN401
    """Return the steps before masks, and what comes after them; None for nothing.

    Raises:
        ValueError: A step normalizes, which the model is to do.
    """
    if any(type(step).__name__ == "Normalize" for step in _iterate_steps(transform)):
        raise ValueError(
            "a transform normalizes the images, and masks act on images in [0, 1]: leave Normalize "
            f"out, and {NORMALIZE}"
        )
    steps = getattr(transform, "steps" if isinstance(transform, Pipeline) else "transforms", None)
    if transform is None or not isinstance(steps, list | tuple):
        return (), transform
    names = [type(step).__name__ for step in steps]
    count = next((n for n, name in enumerate(names) if name not in _DETERMINISTIC), len(names))
    if count == len(names):
        return tuple(steps), None
    if isinstance(transform, Pipeline):
        return tuple(steps[:count]), Pipeline(tuple(steps[count:]))
    return tuple(steps[:count]), _replace(transform, transforms=list(steps[count:]))


def list_transforms(bare: Any) -> list[Any]:  # noqa: ANN401 - a data set
    """Return what is left of the transform of each part of a data set."""
    if isinstance(bare, ConcatDataset):
        return [one for part in bare.datasets for one in list_transforms(part)]
    if isinstance(bare, _Bare):
        return [bare.then]
    return list_transforms(bare.dataset if isinstance(bare, Subset) else bare.data)


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


def _iterate_steps(transform: Any) -> Iterator[Any]:  # noqa: ANN401
    """Yield a transform and, where it holds others, all of these."""
    yield transform
    inner = [getattr(transform, name, ()) for name in ("steps", "transforms")]
    inner.append(list(transform.children()) if isinstance(transform, nn.Module) else ())
    for parts in inner:
        for part in parts if isinstance(parts, list | tuple) else ():
            yield from _iterate_steps(part)


def _replace(of: Any, /, **attributes: Any) -> Any:  # noqa: ANN401 - data sets, transforms
    """Return a shallow copy with other attributes, also of a frozen dataclass."""
    found = copy.copy(of)
    for name, value in attributes.items():
        object.__setattr__(found, name, value)
    return found
