"""The labels of a training: one numbering for all images, and none that is no class."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from xcam._fit.items import check_labels
from xcam._fit.order import list_evaluation_batches
from xcam._fit.source import Source
from xcam.core import TrainableMethod
from xcam.data.categories import list_categories
from xcam.data.datasets import is_several, list_labels
from xcam.models.categories import find_categories, name_outputs
from xcam.runs.processes import Processes

__all__ = ["check_all_labels", "check_listed_labels", "check_shown", "match_sources"]


def match_sources(
    net: nn.Module,
    num_classes: int,
    method: TrainableMethod | None,
    has_several: bool,
    train: Source,
    *others: Source | None,
) -> tuple[Source, list[Source | None]]:
    """Return sources whose labels number the same classes: the net's, or the training images'.

    The training images name the first outputs of a net without names. A method that learns what the
    classifier predicts asks for no labels, and takes any.

    Args:
        net: The classifier.
        num_classes: Of its logits.
        method: Whose head is trained, if any.
        has_several: Whether the training images have several labels each.
        train: The training images.
        *others: Those of validation and test.

    Raises:
        ValueError: Images of other classes.
    """
    asks_for_labels = getattr(method, "labels", None) != "predicted"
    reference = find_categories(net, num_classes)
    owner = "the model"
    if not reference:
        names = list_categories(train.dataset)
        if asks_for_labels or len(names) == num_classes:  # else the net has learned others
            # One output tells two classes apart; a subset may keep names that its labels lack.
            reference = name_outputs(names, max(num_classes, 2)) or names
        owner = "the training data" if reference else owner
    count = len(reference) or num_classes

    def match(source: Source) -> Source:
        with nullcontext() if asks_for_labels else suppress(ValueError):
            source = source.match(reference, count, owner)
        return replace(source, num_classes=num_classes, has_several=has_several)

    return match(train), [None if part is None else match(part) for part in others]


def check_all_labels(
    source: Source, num_classes: int, processes: Processes, batch_size: int, is_begun: bool
) -> None:
    """Refuse labels that are no classes of the net before anything is trained.

    A data set that lists its labels is not read. Of another, every item is loaded once, unless the
    training has begun, with its labels checked by then.

    Raises:
        TypeError: A label that is no integer.
        ValueError: A label that is no class; the image is named.
    """
    if (check_listed_labels(source, num_classes) and _lists_first(source)) or is_begun:
        return
    batches = list_evaluation_batches(len(source), batch_size, processes.rank, processes.count)
    with closing(source.load(batches, seed=0)) as loaded:
        for keys, (_, labels) in zip(batches, loaded, strict=True):
            _check([index for _, index in keys], labels, num_classes, source.name)


def check_shown(validation: Source) -> None:
    """Refuse validation images with several labels that are listed, and show no class at all.

    Raises:
        ValueError: None of them shows one, so that their mAP is not a number.
    """
    listed = list_labels(validation.dataset)
    if listed is None or not all(is_several(label) and not any(label) for label in listed):  # type: ignore[arg-type]
        return
    raise ValueError(
        f"no image of {validation.name} shows a class, and the best epoch is that of the highest "
        f"mAP; give {validation.name} images that show one, or leave it out"
    )


def check_listed_labels(source: Source, num_classes: int) -> bool:
    """Check the labels that a data set lists; return whether all of them are classes.

    A list may hold something else, such as labels that the data set numbers anew for each item, so
    that an item whose label looks wrong there decides.

    Raises:
        TypeError, ValueError: The label of an item is no class; the image is named.
    """
    listed = list_labels(source.dataset)
    limit = num_classes if source.numbering is None else len(source.numbering.numbers)
    if listed is None or not _is_class(listed[0], limit):
        return False
    index = next((k for k, label in enumerate(listed) if not _is_class(label, limit)), None)
    if index is None:
        return True
    _, labels = source.load_one(0, index)
    _check([index], labels, num_classes, source.name)
    return False


def _lists_first(source: Source) -> bool:
    """Return whether the listed label of the first item is the one that it has."""
    _, labels = source.load_one(0)
    listed = list_labels(source.dataset)
    if listed is None:
        return False
    return source.translate(torch.as_tensor(listed[0])[None].to(labels)).equal(labels)


def _is_class(label: object, limit: int) -> bool:
    """Return whether a listed label is a class, or one bool for each of them."""
    if is_several(label):
        return len(label) == limit  # type: ignore[arg-type]  # a list
    return isinstance(label, int) and not isinstance(label, bool) and 0 <= label < limit


def _check(indices: Sequence[int], labels: Tensor, num_classes: int, name: str) -> None:
    for index, label in zip(indices, labels, strict=True):
        try:
            check_labels(label[None], num_classes)
        except ValueError as error:
            raise ValueError(f"image {index} of {name}: {error}") from error
