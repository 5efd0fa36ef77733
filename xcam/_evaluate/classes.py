"""One numbering of classes for a model, the data and stored maps: by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from xcam._evaluate.batches import Batch, Batches
from xcam._evaluate.comparison import Comparison, MapSource
from xcam._evaluate.scoring import move_to_model
from xcam._explain.checks import check_pass
from xcam.core import check_num_labels, extract_logits
from xcam.data.categories import Numbering, list_categories, match_categories, number_classes
from xcam.data.spelling import shorten
from xcam.engine import forward, untouched
from xcam.explanations.folder import StoredMaps
from xcam.models.categories import find_categories

__all__ = ["Classes", "count_classes", "renumber_maps"]


@dataclass(frozen=True)
class Classes:
    """How each model, by its name, numbers what others number differently.

    Attributes:
        numberings: The classes of the data; None where they have the model's numbers, nothing where
            the data has other classes than the model, and no row depends on the labels.
        maps: The maps from elsewhere by label, of classes that have the model's numbers.
    """

    numberings: Mapping[str, Numbering | None]
    maps: Mapping[str, Mapping[str, MapSource]]

    @classmethod
    def match(cls, dataset: object, comparison: Comparison, images: Tensor) -> Classes:
        """Match the names of the classes of the data and of stored maps with those of the models.

        Raises:
            ValueError: The data has other classes than a model, and rows depend on them; or maps
                are of other classes.
        """
        numberings = {}
        for name, model in comparison.models.items():
            try:
                numberings[name] = _number(dataset, name, model, images, comparison.needs_labels)
            except ValueError:
                if comparison.needs_labels:
                    raise
        maps = {
            name: {
                label: renumber_maps(maps, name, model) for label, maps in comparison.maps.items()
            }
            for name, model in comparison.models.items()
        }
        return cls(numberings, maps)

    def number_labels(self, batch: Batch, model: str) -> Batch:
        """Return the batch with labels as a model numbers them, without any where it cannot."""
        if model not in self.numberings:
            return replace(batch, labels=None)
        numbering = self.numberings[model]
        if numbering is None or batch.labels is None:
            return batch
        return replace(batch, labels=numbering.translate(batch.labels))

    def number_listed(self, batches: Batches) -> dict[str, dict[int, int]]:
        """Return the labels that the data lists, by position, as each model numbers them."""
        if batches.labels is None:
            return {}
        selected = [index for group in batches.groups for index in group]
        try:
            labels = torch.tensor([int(batches.labels[index]) for index in selected])  # type: ignore[call-overload]
        except (TypeError, ValueError):  # of a kind that the data turns into numbers elsewhere
            return {}
        found = {}
        for model, numbering in self.numberings.items():
            numbers = labels if numbering is None else numbering.translate(labels)
            found[model] = dict(zip(selected, numbers.tolist(), strict=True))
        return found

    def check_several(self, labels: Tensor, comparison: Comparison, images: Tensor) -> None:
        """Refuse labels (B, K) bool that are numbers of a model's classes, and not one for each.

        Raises:
            ValueError: They are of more or fewer classes.
        """
        for name, model in comparison.models.items():
            if comparison.explains_labels and self.numberings[name] is None:
                check_num_labels(labels.shape[1], count_classes(model, images))

    def describe(self, categories: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
        """Return, as JSON, the models that number the classes of the data in their own way.

        Args:
            categories: The names of these classes.
        """
        return {
            name: {"on": dict(zip(categories, one.numbers, strict=True))}
            for name, one in self.numberings.items()
            if one
        }


def _number(
    dataset: object, name: str, model: nn.Module, images: Tensor, needs_labels: bool
) -> Numbering | None:
    names, reference = list_categories(dataset), find_categories(model)

    def count() -> int:
        # Where no row depends on the labels they are worth no pass of the model.
        return count_classes(model, images) if needs_labels else len(reference) or len(names)

    return number_classes(names, reference, count, owner=repr(name))


def renumber_maps(source: MapSource, name: str, model: nn.Module) -> MapSource:
    """Return stored maps of classes that have a model's numbers; other sources as they are.

    Raises:
        ValueError: They are of other classes than the model's.
    """
    reference = find_categories(model)
    if not isinstance(source, StoredMaps) or not source.categories or not reference:
        return source
    numbers, names = zip(*source.categories.items(), strict=True)
    found = match_categories(names, reference)
    if found is None:
        raise ValueError(
            f"the maps in {str(source.folder)!r} are of the classes {shorten(names)}, and those of "
            f"{name!r} are {shorten(reference)}: score them with a model of their classes, or set "
            "its `categories` to the names of its outputs"
        )
    return source.renumber(dict(zip(numbers, found, strict=True)))


def count_classes(model: nn.Module, images: Tensor) -> int:
    """Return the number of logits that a model has for images (B, C, H, W).

    Raises:
        ValueError: The model fails on them.
    """
    images = move_to_model(images, model)
    try:
        with untouched(model), torch.no_grad():
            output = forward.call(model, images)
    except (AssertionError, RuntimeError) as error:
        if not forward.out_of_memory(error):
            check_pass(model, images)
        raise
    return extract_logits(output, len(images)).shape[1]
