"""Replacing the labels of a data set, for example by those that a model predicts."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from xcam.core import check_logits, extract_logits
from xcam.data.items import collate_items, ending_workers, read_item
from xcam.engine import untouched
from xcam.engine.forward import call

__all__ = ["RelabeledDataset", "predict_labels", "relabel"]


def predict_labels(
    model: nn.Module, data: Dataset[Any], *, batch_size: int = 64, workers: int = 0
) -> Tensor:
    """Return the class that a model predicts for each image of a data set.

    The labels can be stored once, and given to `relabel`::

        numpy.save("labels.npy", xcam.data.predict_labels(model, images))
        data = xcam.data.relabel(images, numpy.load("labels.npy"))

    An image that is cropped at random is predicted from one crop: give the same images with the
    transforms of testing.

    Args:
        model: A classifier of images (B, C, H, W); left as it was.
        data: A map-style data set of `(image, …)`.
        batch_size: Images through the model at a time.
        workers: The number of processes that load images.

    Returns:
        The labels, (N,) int64, on the CPU.

    Raises:
        TypeError: A `DataLoader`, whose order and batches are its own.
        ValueError: No images, or one that cannot be read, which is named.
        ModelOutputError: The output is not one (B, K) tensor, or not finite for an image.
    """
    _check_no_loader(data)
    if len(cast(Sized, data)) == 0:
        raise ValueError("data holds no images to predict the classes of")
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    labels: list[Tensor] = []
    with untouched(model), torch.no_grad():
        loader = DataLoader(
            _NamedItems(data),
            batch_size,
            num_workers=workers,
            collate_fn=partial(collate_items, default_collate),
        )
        batches = iter(loader)
        with ending_workers(batches):
            for batch in batches:
                if isinstance(batch, ValueError):
                    raise batch
                images = batch[0]
                output = call(model, images.to(device), may_overwrite=True)
                logits = extract_logits(output, len(images))
                numbers = torch.arange(len(logits)) + sum(map(len, labels))
                labels.append(check_logits(logits, numbers).argmax(1).cpu())
    return torch.cat(labels)


@dataclass(frozen=True, eq=False)
class _NamedItems(Dataset[Any]):
    """A data set whose errors name the item."""

    data: Any

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401 - whatever the data set holds
        return read_item(self.data, index, "data")


def relabel(data: Dataset[Any], labels: Any) -> RelabeledDataset:  # noqa: ANN401 - tensors, arrays, lists
    """Return a data set with other labels and all else as it is.

    The labels are numbers of the classes of the model that is given these data, whatever the data
    set calls its own.

    Args:
        data: A map-style data set of `(image, label, …)`.
        labels: One integer an item: a tensor, an array or a list.

    Raises:
        TypeError: A `DataLoader`, which has batches instead of items.
        ValueError: Not one integer an item.
    """
    _check_no_loader(data)
    values = torch.as_tensor(labels)
    count = len(cast(Sized, data))
    if values.shape != (count,) or values.is_floating_point() or values.dtype == torch.bool:
        raise ValueError(
            f"labels must be {count} integers, one an item, got {tuple(values.shape)} of "
            f"{values.dtype}"
        )
    return RelabeledDataset(data, tuple(values.tolist()))


def _check_no_loader(data: object) -> None:
    if isinstance(data, DataLoader):
        raise TypeError(
            "data must be a data set of (image, …), got a DataLoader; give the data set that it "
            "loads from, loader.dataset"
        )


@dataclass(frozen=True, eq=False, repr=False)
class RelabeledDataset(Dataset[tuple[Any, ...]]):
    """A data set of `(image, label, …)` with labels of its own; see `relabel`.

    Attributes:
        data: The data set that gives all else.
        labels: The class of each item.
    """

    data: Any
    labels: tuple[int, ...]

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Return the item `(image, label, …)`."""
        image, _, *rest = self.data[index]
        return image, self.labels[index], *rest

    @property
    def classes(self) -> Any:  # noqa: ANN401 - names or a number, as the data set has it
        """Return the `classes` of the data set, which the labels need not number; `()` if none."""
        return getattr(self.data, "classes", ())
