"""Inputs of metrics, checked: maps, explained classes and methods."""

from __future__ import annotations

import torch
from torch import Tensor

from xcam.core import Explanation, Method, SavedMethod, Target
from xcam.engine.forward import note
from xcam.imaging import is_flat

__all__ = ["read_maps", "read_target", "require_method"]


def read_maps(explanation: Explanation, images: Tensor, order: bool = False) -> Tensor:
    """Return the maps (B, H, W) of an explanation, or raise if they are not of these images.

    Args:
        explanation: To be scored.
        images: (B, C, H, W).
        order: The metric reads the order of the pixels, of which a flat map has none: each such
            image is noted.

    Raises:
        ValueError: Another number or size of maps, or values that are not finite.
    """
    maps, wanted = explanation.maps.to(images.device), (len(images), *images.shape[2:])
    if maps.shape != wanted:
        raise ValueError(
            f"maps must be {wanted} for images of shape {tuple(images.shape)}, got "
            f"{tuple(maps.shape)}"
        )
    finite = maps.flatten(1).isfinite().all(1)
    flat = is_flat(maps) if order else torch.zeros_like(finite)
    # One read of both: the host waits for a GPU at each.
    are_finite, are_flat = torch.stack([finite, flat]).tolist()
    if not all(are_finite):
        raise ValueError(f"the map of image {are_finite.index(False)} is not finite")
    for image, has_no_order in enumerate(are_flat):
        if has_no_order:
            note(f"image {image}: the map is flat, its pixels are taken row after row")
    return maps


def read_target(explanation: Explanation, images: Tensor) -> Target:
    """Return the explained classes as a target for these images.

    Raises:
        ValueError: The maps were made elsewhere and no class was given for them, or a callable
            chose the score that was explained, so that there is no class.
    """
    if explanation.target is None:
        if isinstance(explanation.method, SavedMethod) and explanation.method.is_foreign:
            raise ValueError("this explanation names no class; pass target= to Explanation.of")
        raise ValueError(
            "the metric reads the class that was explained, and a callable target has none; "
            "explain a class, or give the explanation one"
        )
    return Target.of(explanation.target.to(images.device), images)


def require_method(explanation: Explanation, name: str) -> Method:
    """Return the method of an explanation, for a metric that explains again.

    Args:
        explanation: What is scored.
        name: Of the metric or the setting that needs the method, for the message.

    Raises:
        ValueError: The maps were made elsewhere, or their method is not installed here.
    """
    method = explanation.method
    if isinstance(method, Method):
        return method
    if method.is_foreign:
        raise ValueError(
            f"these maps were made elsewhere, and {name} explains again; "
            "give an explanation by an xcam method"
        )
    raise ValueError(
        f"{name} explains again, but {method.name!r} is not installed here: install what brings "
        "it, or explain again"
    )
