"""Torchvision's transforms by name, as recipes and command lines hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from xcam.core.instantiate import instantiate
from xcam.errors import unknown

__all__ = ["Pipeline", "Size", "Steps", "make_pipeline", "make_size_steps"]

Size: TypeAlias = int | Sequence[int]
"""The shorter side in pixels, or (H, W)."""

Steps: TypeAlias = Sequence[Mapping[str, Any]]
"""Transforms by name, such as `[{"name": "RandomCrop", "size": 32, "padding": 4}]`."""

_ELSEWHERE = {
    "CutMix": "it mixes whole batches: give it to fit as mix={'cutmix': …}",
    "MixUp": "it mixes whole batches: give it to fit as mix={'mixup': …}",
    "Normalize": "images stay in [0, 1], the model normalizes them: see xcam.models.Normalized",
    "ToTensor": "images become float32 in [0, 1] at the end by themselves: leave it out",
}

_PILLOW_ONLY = ("box", "hamming", "lanczos")  # torchvision lacks them for tensors


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A sequence of transforms from an image of bytes to one of float32 in [0, 1].

    A truth that is given with an image goes through the same steps.

    Attributes:
        steps: Transforms of `torchvision.transforms.v2`, applied in order.
    """

    steps: tuple[Any, ...] = ()

    def __call__(self, image: Tensor, *truth: Tensor) -> Any:  # noqa: ANN401 - one or a tuple
        """Return an image, (C, H, W) uint8, as float32 in [0, 1], and its truth, if any."""
        image = image.as_subclass(Tensor)  # transforms are faster on it than on an `Image`
        for step in self.steps:
            image, *truth = step(image, *truth) if truth else (step(image),)  # type: ignore[assignment]
        # As `xcam.read_image` does; torchvision multiplies by 1/255, which rounds differently.
        unit = image / 255 if image.dtype == torch.uint8 else image.float()
        return (unit, *truth) if truth else unit


def make_pipeline(steps: Steps) -> Pipeline:
    """Make the transforms that settings describe.

    The transforms see an image of bytes. `interpolation` is given by name, such as `"bicubic"`;
    `transforms`, of those that hold others, as a list of such settings.

    Raises:
        TypeError: Not a list of mappings with a name, or an argument that a transform lacks.
        ValueError: A value that a transform refuses, or a transform that belongs elsewhere.
        UnknownNameError: There is no such transform or interpolation; the nearest are named.
    """
    if isinstance(steps, str | Mapping) or not isinstance(steps, Iterable):
        raise TypeError(f"transforms must be a list, such as [{{'name': …}}], got {steps!r}")
    return Pipeline(tuple(map(_make_step, steps)))


def make_size_steps(input_size: Size | None, crop_size: Size | None) -> tuple[Steps, Steps]:
    """Return the steps of training and of testing that bring images to one size.

    Both resize to `input_size`. Training crops `crop_size` at random and mirrors at random;
    testing crops the center.

    Args:
        input_size: The shorter side in pixels, or (H, W) whatever the image's proportions; None
            for no resize.
        crop_size: (H, W) in pixels, or a number for a square; None for `input_size`.

    Raises:
        ValueError: A size that is not one or two positive numbers, or a crop that is larger than
            the resized image.
    """
    resized = None if input_size is None else _check_size("input_size", input_size)
    crop = resized if crop_size is None else _check_size("crop_size", crop_size)
    if crop is None:
        return [], []
    if resized is not None and (crop[0] > resized[0] or crop[-1] > resized[-1]):
        raise ValueError(f"crop_size {crop_size!r} is larger than input_size {input_size!r}")
    resize: list[Any] = [] if resized is None else [{"name": "Resize", "size": resized}]
    cropped = [crop[0], crop[-1]]
    train = [{"name": "RandomCrop", "size": cropped}, {"name": "RandomHorizontalFlip"}]
    return [*resize, *train], [*resize, {"name": "CenterCrop", "size": cropped}]


def _check_size(name: str, size: Size) -> list[int]:
    sides = list(size) if isinstance(size, Sequence) else [size]
    if len(sides) not in (1, 2) or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"{name} must be a positive int, or two, (H, W), got {size!r}")
    return sides


def _make_step(settings: Any) -> Any:  # noqa: ANN401 - torchvision is not typed
    from torchvision.transforms import v2

    classes = {
        name: value
        for name, value in vars(v2).items()
        if isinstance(value, type) and issubclass(value, v2.Transform) and value is not v2.Transform
    }
    if isinstance(settings, Mapping):
        if (name := settings.get("name")) in _ELSEWHERE:
            raise ValueError(f"transform {name} has no place here: {_ELSEWHERE[name]}")
        settings = {name: _convert(name, value) for name, value in settings.items()}
    return instantiate(settings, classes, "transform")


def _convert(name: str, value: Any) -> Any:  # noqa: ANN401
    """Return a value of settings as torchvision takes it."""
    from torchvision.transforms.v2 import AutoAugmentPolicy, InterpolationMode

    if name == "transforms":
        return list(make_pipeline(value).steps)
    words = {"interpolation": InterpolationMode, "policy": AutoAugmentPolicy}.get(name)
    if words is None or not isinstance(value, str):
        return value
    known = {word.value: word for word in words if word.value not in _PILLOW_ONLY}
    if value not in known:
        raise unknown(name, value, known)
    return known[value]
