"""The names of a net's classes: where a net keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain

from torch import nn

from xcam.engine import unwrap
from xcam.models.normalized import Normalized

__all__ = ["find_categories", "name_outputs", "set_categories"]


def find_categories(net: nn.Module, num_classes: int | None = None) -> tuple[str, ...]:
    """Return the names of a net's classes, in the order of its logits; empty if it has none.

    They are the `categories`, or `classes`, of the net itself or of a `Normalized` in it. Names of
    another number than the logits are of the net that it was made from, and left out.

    Args:
        net: A classifier, in any wrapper.
        num_classes: The number of its logits, if it is known.
    """
    net = unwrap(net)
    for owner in chain((net,), _find_normalized(net)):
        for attribute in ("categories", "classes"):
            found = getattr(owner, attribute, ())
            named = isinstance(found, list | tuple) and all(isinstance(n, str) for n in found)
            if named and len(found) == (num_classes or len(found)) > 0:
                return tuple(found)
    return ()


def name_outputs(names: Sequence[str], num_classes: int) -> tuple[str, ...]:
    """Return a name for each output: `names` for the first ones, a placeholder for each other.

    So a net keeps the names of its 3 classes where it has 1000 outputs.

    Returns:
        `num_classes` names; none if there are no names, or more than outputs.
    """
    if not 0 < len(names) <= num_classes:
        return ()
    return (*names, *(f"(output {number})" for number in range(len(names), num_classes)))


def set_categories(net: nn.Module, names: Sequence[str]) -> None:
    """Name the classes of a net: in its first `Normalized`, or in itself where it has none."""
    net = unwrap(net)
    owner = next(_find_normalized(net), net)
    if isinstance(getattr(owner, "categories", ()), list | tuple):  # else something of its own
        with suppress(AttributeError):  # it is read-only
            owner.categories = tuple(names)  # type: ignore[assignment]  # of any module


def _find_normalized(net: nn.Module) -> Iterator[Normalized]:
    return (module for module in net.modules() if isinstance(module, Normalized))
