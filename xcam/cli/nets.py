"""The model that a command works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xcam.models import Normalized

__all__ = ["load_model"]


def load_model(model: str, weights: str, device: str) -> Normalized:
    """Load a model by name, with weights unless they are `"none"`, onto a device.

    A name that ends in `.safetensors` is a file that `xcam.save` or a training wrote, with its
    weights.
    """
    import xcam

    if model.endswith(".safetensors"):
        return _move(_load_file(model, weights), device)
    return _move(xcam.models.load(model, weights), device)


def _load_file(path: str, weights: str) -> Normalized:
    from xcam.checkpoints import load_net
    from xcam.models import Normalized

    if weights != "DEFAULT":
        raise ValueError(f"{path!r} holds its weights; leave --weights out, got {weights!r}")
    net = load_net(path)
    if not isinstance(net, Normalized):
        raise ValueError(
            f"{path!r} does not say how its images are normalized; wrap the net in "
            "xcam.models.Normalized before training or saving it"
        )
    return net


def _move(net: Normalized, device: str) -> Normalized:
    try:
        return net.to(device)
    except (AssertionError, RuntimeError) as error:  # torch without CUDA asserts that it has it
        raise ValueError(f"--device {device!r} cannot be used: {error}") from error
