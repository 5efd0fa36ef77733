"""The model that a command works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcam.cli.literals import parse_value

if TYPE_CHECKING:
    from xcam.models import Normalized

__all__ = ["NetOptions", "is_file", "load_model", "parse_settings"]


@dataclass(frozen=True)
class NetOptions:
    """What a command is told of the net beside its name and weights, as texts.

    Attributes:
        settings: Arguments of its constructor, `name=value`.
        categories: File of the names of its classes.
        mean: Numbers, one a channel, apart by commas.
        std: Likewise.
    """

    settings: tuple[str, ...] = ()
    categories: Path | None = None
    mean: str | None = None
    std: str | None = None


def load_model(
    model: str, weights: str, device: str, given: NetOptions = NetOptions()
) -> Normalized:
    """Load a model by name, with weights unless they are `"none"`, onto a device.

    A name that ends in `.safetensors` is a file that `xcam.save` or a training wrote, with its
    weights.

    Raises:
        ValueError: Options that do not apply, or numbers that are none.
    """
    import xcam

    if is_file(model):
        return _move(_load_file(model, weights, given), device)
    named: dict[str, Any] = {
        "categories": given.categories,
        "mean": _parse_numbers("--mean", given.mean),
        "std": _parse_numbers("--std", given.std),
    }
    named = {name: value for name, value in named.items() if value is not None}
    return _move(
        xcam.models.load(model, weights, **named, **parse_settings(given.settings)), device
    )


def is_file(model: str) -> bool:
    """Return whether a model is a file that xcam wrote, which says all of its net."""
    return model.endswith(".safetensors")


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse `name=value` pairs; a value is a Python literal, or else a word.

    Raises:
        ValueError: A pair without a name or a value.
    """
    settings = {}
    for pair in pairs:
        name, sign, text = (part.strip() for part in pair.partition("="))
        if not (sign and text and name.isidentifier()):
            raise ValueError(f"--set takes name=value, such as num_classes=7, got {pair!r}")
        settings[name] = parse_value(text)
    return settings


def _parse_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        raise ValueError(
            f"{option} takes numbers, one a channel, such as 0.485,0.456,0.406, got {text!r}"
        ) from error


def _load_file(path: str, weights: str, given: NetOptions) -> Normalized:
    from xcam.checkpoints import load_net
    from xcam.core.categories import read_categories
    from xcam.models import Normalized
    from xcam.models.categories import set_categories

    if given.settings or given.mean or given.std:
        raise ValueError(f"{path!r} says how its net is made; leave --set, --mean and --std out")
    if weights != "DEFAULT":
        raise ValueError(f"{path!r} holds its weights; leave --weights out, got {weights!r}")
    net = load_net(path)
    if not isinstance(net, Normalized):
        raise ValueError(
            f"{path!r} does not say how its images are normalized; wrap the net in "
            "xcam.models.Normalized before training or saving it"
        )
    if given.categories:
        set_categories(net, read_categories(given.categories))
    return net


def _move(net: Normalized, device: str) -> Normalized:
    try:
        return net.to(device)
    except (AssertionError, RuntimeError) as error:  # torch without CUDA asserts that it has it
        raise ValueError(f"--device {device!r} cannot be used: {error}") from error
