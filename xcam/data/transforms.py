"""What is done to the images of a data set: torchvision's transforms, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from xcam.core.instantiate import instantiate
from xcam.errors import unknown

__all__ = ["Pipeline", "Size", "Steps", "pipeline", "sized"]

Size: TypeAlias = int | Sequence[int]
"""The shorter side in pixels, or (H, W)."""

Steps: TypeAlias = Sequence[Mapping[str, Any]]
"""Transforms by name, such as `[{"name": "RandomCrop", "size": 32, "padding": 4}]`."""

_ELSEWHERE = {
    "CutMix": "it mixes whole batches: give it to fit as mix={'cutmix': …}",
    "MixUp": "it mixes whole batches: give it to fit as mix={'mixup': …}",
    "Normalize": "images stay in [0, 1], the model normalises them: see xcam.models.Normalized",
    "ToTensor": "images become float32 in [0, 1] at the end by themselves: leave it out",
}

_OF_PILLOW = ("box", "hamming", "lanczos")  # interpolations that torchvision has not for tensors


@dataclass(frozen=True, eq=False)
class Pipeline:
    """From an image of unsigned bytes to one of float32 in [0, 1], some steps between.

    A truth, if it comes along, goes through the same steps.

    Attributes:
        steps: Transforms of `torchvision.transforms.v2`, called in turn.
    """

    steps: tuple[Any, ...] = ()

    def __call__(self, image: Tensor, *truth: Tensor) -> Any:  # noqa: ANN401 - one or a tuple
        """An image, (C, H, W) uint8, as (C, H, W) float32 in [0, 1]; and its truth, if any."""
        image = image.as_subclass(Tensor)  # of which the transforms are faster than of an `Image`
        for step in self.steps:
            image, *truth = step(image, *truth) if truth else (step(image),)  # type: ignore[assignment]
        # As `xcam.read_image` divides; torchvision multiplies by 1/255, which rounds otherwise.
        unit = image / 255 if image.dtype == torch.uint8 else image.float()
        return (unit, *truth) if truth else unit


def pipeline(steps: Steps) -> Pipeline:
    """The transforms of some settings.

    They see an image of unsigned bytes. `interpolation` is given by name, such as `"bicubic"`, and
    `transforms`, of those that hold others, as such settings again.

    Raises:
        TypeError: Not a list of mappings with a name, or an argument that a transform lacks.
        ValueError: A value that a transform refuses, or a transform that has its place elsewhere.
        UnknownNameError: There is no such transform or interpolation; the nearest are named.
    """
    if isinstance(steps, str | Mapping) or not isinstance(steps, Iterable):
        raise TypeError(f"transforms must be a list, such as [{{'name': …}}], got {steps!r}")
    return Pipeline(tuple(map(_step, steps)))


def sized(input_size: Size | None, crop_size: Size | None) -> tuple[Steps, Steps]:
    """The steps of training and of testing that bring images to one size.

    Both resize to `input_size`. Training crops `crop_size` at random and mirrors at random,
    testing crops the centre.

    Args:
        input_size: The shorter side, or (H, W) whatever the image's proportions; None for no
            resize.
        crop_size: (H, W), or a number for a square; None for `input_size`.

    Raises:
        ValueError: A size that is not one or two positive numbers, or a crop that is larger than
            the resized image.
    """
    whole = None if input_size is None else _sides("input_size", input_size)
    crop = whole if crop_size is None else _sides("crop_size", crop_size)
    if crop is None:
        return [], []
    if whole is not None and (crop[0] > whole[0] or crop[-1] > whole[-1]):
        raise ValueError(f"crop_size {crop_size!r} is larger than input_size {input_size!r}")
    resize: list[Any] = [] if whole is None else [{"name": "Resize", "size": whole}]
    cut = [crop[0], crop[-1]]
    train = [{"name": "RandomCrop", "size": cut}, {"name": "RandomHorizontalFlip"}]
    return [*resize, *train], [*resize, {"name": "CenterCrop", "size": cut}]


def _sides(name: str, size: Size) -> list[int]:
    sides = list(size) if isinstance(size, Sequence) else [size]
    if len(sides) not in (1, 2) or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"{name} must be a positive int, or two, (H, W), got {size!r}")
    return sides


def _step(settings: Any) -> Any:  # noqa: ANN401 - torchvision is not typed
    from torchvision.transforms import v2

    classes = {
        name: value
        for name, value in vars(v2).items()
        if isinstance(value, type) and issubclass(value, v2.Transform) and value is not v2.Transform
    }
    if isinstance(settings, Mapping):
        if (name := settings.get("name")) in _ELSEWHERE:
            raise ValueError(f"transform {name} has no place here: {_ELSEWHERE[name]}")
        settings = {name: _argument(name, value) for name, value in settings.items()}
    return instantiate(settings, classes, "transform")


def _argument(name: str, value: Any) -> Any:  # noqa: ANN401
    """A value of settings as torchvision takes it."""
    from torchvision.transforms.v2 import AutoAugmentPolicy, InterpolationMode

    if name == "transforms":
        return list(pipeline(value).steps)
    words = {"interpolation": InterpolationMode, "policy": AutoAugmentPolicy}.get(name)
    if words is None or not isinstance(value, str):
        return value
    known = {word.value: word for word in words if word.value not in _OF_PILLOW}
    if value not in known:
        raise unknown(name, value, known)
    return known[value]
