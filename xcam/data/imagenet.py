"""The names of ImageNet's 1000 classes: WordNet ids, and words for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from xcam.core.categories import fold_name

__all__ = ["find_imagenet_numbers", "list_imagenet_categories"]

_WNID = re.compile(r"n\d{8}(?!\d)")
_AMBIGUOUS = ("crane", "maillot")  # each a word for two of the classes
_FEW = 10  # words of a list of all classes that may be others than torchvision's


def list_imagenet_categories() -> tuple[str, ...]:
    """Return torchvision's names of the 1000 classes."""
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.DEFAULT.meta["categories"])


def find_imagenet_numbers(names: Sequence[str]) -> list[int | None]:
    """Return the number of each name among ImageNet's classes; None for a name of none of them.

    A name is a WordNet id, alone or before a word (`n02085620-Chihuahua`), or the first of the
    words for a class (`tench, Tinca tinca`). A word for two classes, such as `crane`, is a name of
    none, except in a list of all 1000, where the position tells which is meant.
    """
    known = _number_names()
    found = [known.get(_find_key(name)) for name in names]
    if len(names) == 1000:
        other = [name for k, name in enumerate(names) if found[k] != k]
        if len(other) <= _FEW and not any(map(_WNID.match, other)):
            return list(range(1000))
    return found


def _find_key(name: str) -> str:
    wnid = _WNID.match(name)
    return wnid.group() if wnid else fold_name(name.partition(",")[0])


@cache
def _number_names() -> dict[str, int]:
    text = (files("xcam.data") / "imagenet_wnids.txt").read_text("ascii")
    names = [*map(fold_name, list_imagenet_categories()), *text.split()]
    numbers = {name: position % 1000 for position, name in enumerate(names)}
    return {name: number for name, number in numbers.items() if name not in _AMBIGUOUS}
