"""Items of a training: seeded, and with labels that are checked where the image is known."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from xcam._fit.order import Key, seed_item
from xcam.core import check_num_labels, is_multi_label
from xcam.data.categories import Numbering
from xcam.data.items import append_path, read_item

__all__ = ["SeededDataset", "check_classes", "check_labels"]


class SeededDataset(Dataset[Any]):
    """A data set whose items draw their random numbers from (seed, epoch, index).

    Global generators stay where an item leaves them: each next item, and each step, seeds them. An
    item that fails is named by the data set's name.

    Args:
        dataset: Items by number.
        seed: Of what loading them draws.
        name: Of the data set, for messages.
        check: Refuses a label, (1,) or (1, K) bool, that is no class; None where items need not be
            `(image, label, …)`.
    """

    def __init__(
        self,
        dataset: Any,  # noqa: ANN401
        seed: int,
        name: str,
        check: Callable[[Tensor], object] | None,
    ) -> None:
        self.dataset, self.seed, self.name, self.check = dataset, seed, name, check

    def __getitem__(self, key: Key) -> Any:  # noqa: ANN401 - whatever the data set holds
        epoch, index = key
        seed_item("item", self.seed, epoch, index)
        item = read_item(self.dataset, index, self.name)
        if self.check is None or not isinstance(item, list | tuple) or len(item) < 2:
            return item
        try:
            self.check(_read_label(item[1]))
        except (TypeError, ValueError) as error:
            message = f"image {index} of {self.name}: {error}"
            failure = type(error)(append_path(message, self.dataset, index))
            if get_worker_info() is None:
                raise failure from error
            return failure  # raised here, torch would put the worker's traceback into the message
        return item

    def __getitems__(self, keys: Sequence[Key]) -> list[Any]:
        """Return the items of a batch, as torch's loaders ask for them.

        A data set that draws nothing may load them together: its `load_batch` is not None then.
        """
        load_batch = getattr(self.dataset, "load_batch", None)
        if load_batch is None:
            return [self[key] for key in keys]
        return list(load_batch([index for _, index in keys]))


def check_classes(
    has_several: bool | None, numbering: Numbering | None, num_classes: int | None, labels: Tensor
) -> None:
    """Refuse labels of the data set that are no classes, or of another kind than the first.

    Raises:
        ValueError: There is one.
    """
    several = is_multi_label(labels)
    if has_several is not None and several != has_several:
        kinds = ("an integer", "a (K,) bool tensor")
        raise ValueError(
            f"the label is {kinds[several]}, and the first image's is {kinds[has_several]}; "
            "give all images one kind of label"
        )
    if numbering is not None:
        numbering.translate(labels)
    elif num_classes is not None:
        check_labels(labels, num_classes)


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Refuse labels, (B,) or (B, K) bool, on the CPU that are no classes of the net.

    Raises:
        ValueError: A label is out of range, or several labels are of another number of classes.
    """
    if is_multi_label(labels):
        check_num_labels(labels.shape[1], num_classes)
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"label {low if low < 0 else high} is out of range: the model has {num_classes} "
            f"classes, 0 to {num_classes - 1}"
        )


def _read_label(label: object) -> Tensor:
    """Return an item's label as a tensor (1,); the labels of an image with several as (1, K) bool.

    Raises:
        TypeError: It is no integer.
    """
    if isinstance(label, Tensor | np.ndarray):
        found = torch.as_tensor(label)
        if found.ndim == 1 and found.dtype == torch.bool:
            return found[None]
        is_integer = not (found.is_floating_point() or found.is_complex())
        if found.ndim == 0 and is_integer and found.dtype != torch.bool:
            return found[None]
    elif not isinstance(label, bool) and isinstance(label, Integral):
        return torch.tensor([int(label)])
    raise TypeError(
        f"the label must be an integer, the number of a class, or a (K,) bool tensor of several, "
        f"got {reprlib.repr(label)}; xcam.data.relabel gives a data set other labels"
    )
