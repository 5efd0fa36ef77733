"""The model of a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xcam.models import Normalized

__all__ = ["loaded"]


def loaded(model: str, weights: str, device: str) -> Normalized:
    """The model of a name, with weights unless they are `"none"`, on a device."""
    import xcam

    return _moved(xcam.models.load(model, None if weights == "none" else weights), device)


def _moved(net: Normalized, device: str) -> Normalized:
    try:
        return net.to(device)
    except (AssertionError, RuntimeError) as error:  # torch without CUDA asserts that it has it
        raise ValueError(f"--device {device!r} cannot be used: {error}") from error
