"""Maps that are not computed now: stored ones, and those from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from xcam._evaluate.failures import Cost, Outcome
from xcam.core import Explanation
from xcam.explanations.folder import read_batch
from xcam.results.store import Store

__all__ = ["Recalled", "concatenate", "group_by_resolution", "recall", "wrap_maps"]

_COSTS = tuple(f"explain_{name}" for name in Cost._fields)


@dataclass(frozen=True)
class Recalled:
    """Maps that a method made of a batch before, and what they took.

    Attributes:
        maps: (h, w) each, by the image's id and the class; None if they count for any.
        costs: By the image's position in the data.
    """

    maps: Mapping[tuple[str, int | None], Tensor]
    costs: Mapping[int, Cost]

    def find(self, name: str, index: int, target: int) -> tuple[Tensor, Cost] | None:
        """Return the map of an image and a class, with its cost; None if there is none."""
        found = self.maps.get((name, target), self.maps.get((name, None)))
        cost = self.costs.get(index)
        return None if found is None or cost is None else (found, cost)


def recall(store: Store, number: int, model: str, methods: Iterable[str]) -> dict[str, Recalled]:
    """Return the stored maps of those methods that have rows of a batch, and maps."""
    paths = {label: store.locate_maps(number, model, label) for label in methods}
    paths = {label: path for label, path in paths.items() if path.exists()}
    costs: dict[str, dict[int, Cost]] = {}
    for row in store.read_rows(number) if paths else ():
        values = [row[name] for name in _COSTS]
        if row["model"] == model and row["method"] in paths and None not in values:
            costs.setdefault(row["method"], {})[row["index"]] = Cost(*values)
    return {label: Recalled(read_batch(paths[label]), known) for label, known in costs.items()}


def group_by_resolution(outcome: Outcome[list[Explanation]]) -> list[Outcome[Explanation]]:
    """Join the explanations of single images where their maps have the same resolution."""
    groups: dict[tuple[int, ...], dict[int, Explanation]] = {}
    for row, single in zip(outcome.rows, outcome.result or (), strict=True):
        groups.setdefault(tuple(single.raw.shape[1:]), {})[row] = single
    failed: Outcome[Explanation] = Outcome([], None, {}, outcome.errors)
    return [
        Outcome(
            [*group],
            Explanation.cat([*group.values()]),
            {row: outcome.costs[row] for row in group},
            {},
        )
        for group in groups.values()
    ] + [failed]


def wrap_maps(
    maps: object, label: str, images: Tensor, targets: Tensor, logits: Tensor
) -> list[Explanation]:
    """Return an explanation of each image alone: maps from elsewhere may differ in resolution."""
    count = len(images)
    if isinstance(maps, Tensor | np.ndarray):
        if maps.ndim not in (3, 4) or len(maps) != count:
            raise ValueError(f"{label} must give ({count}, h, w) maps, got {tuple(maps.shape)}")
    elif not isinstance(maps, list | tuple) or len(maps) != count:
        raise TypeError(f"{label} must give a tensor of {count} maps, got {type(maps).__name__}")
    explanations = []
    for row, single in enumerate(maps):
        if not isinstance(single, Tensor | np.ndarray):
            raise TypeError(f"{label} must give tensors or arrays, got {type(single).__name__}")
        one = slice(row, row + 1)
        explanations.append(
            Explanation.of(single[None], images[one], targets[one], logits[one], label)
        )
    return explanations


def concatenate(parts: list[list[Explanation]]) -> list[Explanation]:
    """Join lists of explanations."""
    return [single for part in parts for single in part]
