"""The names of the classes of a data set, and the numbers that a model gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from xcam.core.categories import fold_name
from xcam.data.imagenet import find_imagenet_numbers
from xcam.data.labels import RelabeledDataset
from xcam.data.spelling import parse_numbers, shorten
from xcam.sentences import pluralize

__all__ = ["Numbering", "list_categories", "list_missing", "match_categories", "number_classes"]

_REMEDY = (
    "rename the classes of the data, or number its labels as the model does, with "
    "xcam.data.relabel; where the model's names are not those of its outputs, set its `categories`"
)


@dataclass(frozen=True)
class Numbering:
    """The number that a model gives to each class of a data set.

    Attributes:
        numbers: By the data set's own number of the class.
        num_classes: How many classes the model has.
    """

    numbers: tuple[int, ...]
    num_classes: int

    def translate(self, labels: Tensor) -> Tensor:
        """Return labels of the data set, (B,) or (B, K) bool, as the model numbers them.

        Raises:
            ValueError: A label is no number of a class that the data set names, or several labels
                are not one bool for each of these.
        """
        if labels.ndim == 2:
            return self._translate_several(labels)
        wrong = labels[(labels < 0) | (labels >= len(self.numbers))]
        if len(wrong):
            raise ValueError(
                f"label {int(wrong[0])} is out of range: the data names "
                f"{pluralize(len(self.numbers), 'class')}, 0 to {len(self.numbers) - 1}"
            )
        return torch.tensor(self.numbers, device=labels.device)[labels]

    def _translate_several(self, labels: Tensor) -> Tensor:
        if labels.shape[1] != len(self.numbers):
            raise ValueError(
                f"labels of {labels.shape[1]} classes are given, and the data names "
                f"{pluralize(len(self.numbers), 'class')}; give a bool for each"
            )
        translated = labels.new_zeros(len(labels), self.num_classes)
        translated[:, list(self.numbers)] = labels
        return translated


def list_categories(dataset: object) -> tuple[str, ...]:
    """Return the names of the classes that the labels of a data set number; empty if unknown.

    They are its `class_to_idx`, `classes` or `categories`, as in torchvision. Labels that a
    `target_transform` or `xcam.data.relabel` made have no names, and neither have those of a
    `class_to_idx` with gaps: they are numbers of a model, such as ImageNet's for ten classes.

    Raises:
        ValueError: The parts of a `ConcatDataset` name their classes differently.
    """
    if isinstance(dataset, Subset):
        return list_categories(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return _join_categories([list_categories(part) for part in dataset.datasets])
    if isinstance(dataset, RelabeledDataset) or getattr(dataset, "target_transform", None):
        return ()
    numbers = getattr(dataset, "class_to_idx", None)
    if isinstance(numbers, dict) and {*numbers.values()} == {*range(len(numbers))}:
        return _read_names(sorted(numbers, key=numbers.__getitem__))
    for attribute in ("classes", "categories"):
        if names := _read_names(getattr(dataset, attribute, ())):
            return () if _has_gaps(numbers, len(names)) else names
    return ()


def _has_gaps(numbers: object, count: int) -> bool:
    """Return whether `class_to_idx` numbers some of the classes beyond their count."""
    return isinstance(numbers, dict) and any(k >= count for k in numbers.values())


def _read_names(found: object) -> tuple[str, ...]:
    """Return names as a tuple; empty where they are none. Synonyms are joined by commas."""
    if not isinstance(found, list | tuple | np.ndarray):
        return ()
    joined = [", ".join(name) if isinstance(name, tuple) else name for name in found]
    return tuple(map(str, joined)) if all(isinstance(name, str) for name in joined) else ()


def _join_categories(parts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    named = list(dict.fromkeys(filter(None, parts)))
    if len(named) > 1:
        raise ValueError(
            f"the parts of a ConcatDataset name their classes differently: {shorten(named[0])}; "
            f"and {shorten(named[1])}, so that a label means two classes; give each part a folder "
            "for every class, an empty one where it has no images, or number the labels of each "
            "part alike, with xcam.data.relabel"
        )
    return named[0] if named else ()


def number_classes(
    names: Sequence[str],
    reference: Sequence[str],
    count: Callable[[], int],
    data: str = "the data",
    owner: str = "the model",
) -> Numbering | None:
    """Return how a model numbers the classes of a data set; None where it is as the data does.

    Labels of a data set without names are numbers of the model's classes. So are those of one with
    names, for a model without, if there are as many.

    Args:
        names: Of the data set's classes, in its order; empty if they are unknown.
        reference: Of the model's classes, in its order; empty if they are unknown.
        count: Returns the number of the model's classes; called where that is not known otherwise.
        data: What the data set is called in a message.
        owner: What the model is called there.

    Raises:
        ValueError: A class of the data is none of the model's, or there are not as many.
    """
    if not names or tuple(names) == tuple(reference):
        return None
    numbers = match_categories(names, reference) if reference else None
    if numbers is None and (not reference or _is_numbering(reference) or len(reference) != count()):
        _check_unnamed(names, count(), data, owner)
        return None
    if numbers is None:
        missing = list_missing(names, reference)
        unknown = (
            f"{owner} has no {shorten(missing)}"
            if missing
            else "two of the names mean the same class"
        )
        raise ValueError(
            f"labels are compared by name: the classes of {data} are {shorten(names)}; those of "
            f"{owner} are {shorten(reference)}; {unknown}: {_REMEDY}"
        )
    if numbers == tuple(range(len(numbers))):
        return None
    return Numbering(numbers, len(reference))


def _check_unnamed(names: Sequence[str], count: int, data: str, owner: str) -> None:
    """Refuse to take the data's numbers of its classes for those of a model without names."""
    if len(names) != max(count, 2):
        raise ValueError(
            f"the labels of {data} are the numbers of its {pluralize(len(names), 'class')} "
            f"({shorten(names, 3, counted=False)}), and {owner} has {pluralize(count, 'class')}: "
            "give a folder for each class, an empty one where there is no image; or set the "
            "model's `categories` to the names of its outputs; or number the labels as it "
            "does, with xcam.data.relabel"
        )
    numbers = parse_numbers(names)
    if numbers is not None and sorted(numbers) == list(range(count)) != numbers:
        raise ValueError(
            f"the classes of {data} are numbers in another order ({shorten(names)}), and {owner} "
            "has no names for its own: set its `categories` to those names if that is its order, "
            "or read the folder with xcam.data.folder, where class 2 comes before class 10"
        )


def match_categories(names: Sequence[str], reference: Sequence[str]) -> tuple[int, ...] | None:
    """Return each name's position in `reference`; None if a name has no unique match.

    Names are the same as they stand; without case, blanks, `_` and `-`; as names of ImageNet's
    classes; or as the numbers of all classes, from 0.
    """
    readings: tuple[Callable[[Sequence[str]], Sequence[Hashable]], ...]
    readings = (list, _fold, find_imagenet_numbers)
    for read in readings:
        found = _find_positions(read(names), read(reference))
        if found is not None:
            return found
    numbers = parse_numbers(names)
    return tuple(numbers) if numbers and sorted(numbers) == [*range(len(reference))] else None


def list_missing(names: Sequence[str], reference: Sequence[str]) -> list[str]:
    """Return the names that match nothing in `reference`."""
    known = {*_fold(reference), *find_imagenet_numbers(reference)} - {None}
    keys = zip(names, _fold(names), find_imagenet_numbers(names), strict=True)
    return [name for name, *spellings in keys if known.isdisjoint(spellings)]


def _fold(names: Sequence[str]) -> list[str]:
    return [fold_name(name) for name in names]


def _find_positions(
    keys: Sequence[Hashable], reference: Sequence[Hashable]
) -> tuple[int, ...] | None:
    """Return where each key is in the reference; None unless each is there once, and is given once.

    None and the empty name are no keys.
    """
    counts = Counter(reference)
    if len(set(keys)) < len(keys) or any(counts[key] != 1 or key in (None, "") for key in keys):
        return None
    positions = {key: position for position, key in enumerate(reference)}
    return tuple(positions[key] for key in keys)


def _is_numbering(names: Sequence[str]) -> bool:
    """Return whether names are but the numbers of the classes."""
    return parse_numbers(names) == list(range(len(names)))
