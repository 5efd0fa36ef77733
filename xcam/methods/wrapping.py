"""What methods that run another method, their base, have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor

from xcam import imaging
from xcam.core import Method, MethodSpec
from xcam.core.maps import reduce_channels

__all__ = ["Base", "check_base", "describe_wrapper", "normalize_maps", "require_base"]

Base: TypeAlias = "str | tuple[str, Mapping[str, Any]] | Method"
"""A method, its name, or its name and settings, as in `("gradcam", {"layer": "layer3"})`."""


def check_base(owner: str, base: object) -> None:
    """Refuse, with a `TypeError`, what is neither a method nor names one."""
    pair = isinstance(base, tuple) and len(base) == 2
    if isinstance(base, str | Method):
        return
    if not pair or not isinstance(base[0], str) or not isinstance(base[1], Mapping):  # type: ignore[index]
        raise TypeError(
            f"{owner}: base must be a method, its name, or its name and settings, such as "
            f"('gradcam', {{'relu': True}}), got {base!r}"
        )


def require_base(base: object) -> Method:
    """Return a base that is a method object; refuse, with a `TypeError`, one that is only named."""
    if not isinstance(base, Method):
        raise TypeError(
            f"base {base!r} is only named: give a method object, or call xcam.explain, "
            "which makes it"
        )
    return base


def describe_wrapper(own: MethodSpec, base: MethodSpec, cost: str) -> MethodSpec:
    """Return the spec of a method that runs a base, at a cost in terms of the base's."""
    return dataclasses.replace(
        own,
        title=f"{own.title} of {base.title}",
        cost=cost,
        class_specific=base.class_specific,
        signed=own.signed and base.signed,
        alters_model=base.alters_model,
        exceptions=base.exceptions,
    )


def normalize_maps(raw: Tensor, base: Method, size: tuple[int, int]) -> Tensor:
    """Return what is positive in the maps of a base, in [0, 1] at their own size, enlarged.

    So does grad-cam before it averages maps.

    Args:
        raw: (B, h, w) or (B, C, H, W), as the base gives them.
        base: Its `reduce` makes one value of a pixel's channels.
        size: (H, W) of the images.

    Returns:
        (B, H, W).
    """
    reduced = reduce_channels(raw, base.parameters().get("reduce", "sum"))
    return imaging.resize(imaging.normalize(reduced.clamp(min=0)), size)
