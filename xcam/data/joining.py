"""Parts of a `ConcatDataset` that name their classes differently, numbered alike."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from xcam.core.categories import fold_name
from xcam.data.categories import Numbering, list_categories
from xcam.data.datasets import is_several, list_labels
from xcam.data.spelling import parse_numbers

__all__ = ["number_parts_alike"]


def number_parts_alike(dataset: Any) -> Any:  # noqa: ANN401 - any with items by number
    """Return a data set in which each label means one class, by name.

    The parts of a `ConcatDataset` get the numbers that one folder of all their classes would give,
    or those of a part that has all classes. Where these are not clear, such as of parts without
    names or with two spellings of a name, the data set is returned as it is.
    """
    if isinstance(dataset, Subset):
        return _replace(dataset, dataset=number_parts_alike(dataset.dataset))
    if not isinstance(dataset, ConcatDataset):
        return dataset
    parts = [number_parts_alike(part) for part in dataset.datasets]
    try:
        named = [list_categories(part) for part in parts]
    except ValueError:
        return dataset
    names = _join_names(named)
    if not names:
        return dataset
    numbered = [
        part
        if own == names
        else _Part(part, names, Numbering(tuple(map(names.index, own)), len(names)))
        for part, own in zip(parts, named, strict=True)
    ]
    return _replace(dataset, datasets=numbered)


@dataclass(frozen=True, eq=False)
class _Part(Dataset[Any]):
    """A data set of `(image, label, …)` with labels that number the classes of all parts."""

    data: Any
    categories: tuple[str, ...]
    numbering: Numbering

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        image, label, *rest = self.data[index]
        return image, self._translate(label), *rest

    def _translate(self, label: Any) -> Any:  # noqa: ANN401 - whatever the data set holds
        if is_several(label):
            return self.numbering.translate(torch.as_tensor(label)[None])[0]
        try:
            number = operator.index(label)
        except TypeError:
            return label  # refused where labels are read, as `True` is
        if isinstance(label, bool):
            return label
        return int(self.numbering.translate(torch.tensor([number])))

    @property
    def labels(self) -> list[Any] | None:
        """Return the label of every image, if the data set lists them."""
        listed = list_labels(self.data)
        return None if listed is None else [self._translate(label) for label in listed]


def _join_names(parts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the names of all parts in an order that is clear; empty if there is none."""
    joined = {*chain.from_iterable(parts)}
    if not all(parts) or len({*map(fold_name, joined)}) < len(joined):
        return ()
    whole = {part for part in parts if {*part} == joined}
    if whole:
        return whole.pop() if len(whole) == 1 else ()
    return _sort(joined) if all(part == _sort(part) for part in parts) else ()


def _sort(names: Sequence[str] | set[str]) -> tuple[str, ...]:
    """Return names in a folder's order: by number, or by letter."""
    ordered = sorted(names)
    return tuple(ordered if parse_numbers(ordered) is None else sorted(ordered, key=int))


def _replace(dataset: Any, /, **attributes: Any) -> Any:  # noqa: ANN401
    """Return a data set with other parts and all else as it is."""
    found = copy.copy(dataset)
    found.__dict__.update(attributes)
    return found
