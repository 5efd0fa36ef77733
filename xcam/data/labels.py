"""A data set with other labels, such as those that a model predicts."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from xcam.core import extract_logits
from xcam.engine import untouched
from xcam.engine.forward import call

__all__ = ["Relabelled", "predicted_labels", "relabeled"]


def predicted_labels(
    model: nn.Module, data: Dataset[Any], batch_size: int = 64, workers: int = 0
) -> Tensor:
    """The class that a model predicts for each image of a data set, to train on what it decides.

    They can be stored once, and given to `relabelled`::

        numpy.save("labels.npy", xcam.data.predicted_labels(model, images))
        data = xcam.data.relabeled(images, numpy.load("labels.npy"))

    Images that are cropped at random are predicted from one crop; give the same images without.

    Args:
        model: From images (B, C, H, W) to logits (B, K); left as it was.
        data: A map-style data set of `(image, …)`.
        batch_size: Images through the model at a time.
        workers: Processes that load images.

    Returns:
        (N,) int64, on the CPU.

    Raises:
        TypeError: A `DataLoader`, whose order and batches are its own.
        ValueError: No images.
        ModelOutputError: The output is not one (B, K) tensor.
    """
    _check_no_loader(data)
    if len(cast(Sized, data)) == 0:
        raise ValueError("data holds no images to predict the classes of")
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    found = []
    with untouched(model), torch.no_grad():
        for images, *_ in DataLoader(data, batch_size, num_workers=workers):
            logits = extract_logits(call(model, images.to(device), may_overwrite=True), len(images))
            found.append(logits.argmax(1).cpu())
    return torch.cat(found)


def relabeled(data: Dataset[Any], labels: Any) -> Relabelled:  # noqa: ANN401 - tensors, arrays, lists
    """A data set of `(image, label, …)` with other labels.

    Args:
        data: Map-style.
        labels: As many integers as it has items.

    Raises:
        TypeError: A `DataLoader`, which has batches and no items.
        ValueError: Not one label an item.
    """
    _check_no_loader(data)
    values = torch.as_tensor(labels)
    count = len(cast(Sized, data))
    if values.shape != (count,) or values.is_floating_point() or values.dtype == torch.bool:
        raise ValueError(
            f"labels must be {count} integers, one an item, got {tuple(values.shape)} of "
            f"{values.dtype}"
        )
    return Relabelled(data, tuple(values.tolist()))


def _check_no_loader(data: object) -> None:
    if isinstance(data, DataLoader):
        raise TypeError(
            "data must be a data set of (image, …), got a DataLoader; give what it loads from, "
            "loader.dataset"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Relabelled(Dataset[tuple[Any, ...]]):
    """The data set that `relabelled` returns.

    Attributes:
        data: Where all else comes from.
        labels: A class an item.
    """

    data: Any
    labels: tuple[int, ...]

    def __len__(self) -> int:
        """The number of items."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """The item `(image, label, …)`."""
        image, _, *rest = self.data[index]
        return image, self.labels[index], *rest

    @property
    def classes(self) -> Any:  # noqa: ANN401 - names or a number, as the data set has it
        """As of the data set; `()` if it has none."""
        return getattr(self.data, "classes", ())
