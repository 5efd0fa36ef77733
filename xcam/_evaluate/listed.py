"""What a data set says of its images without reading them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.utils.data import Subset

from xcam.data.arrays import ImageArrays
from xcam.data.files import ImageFiles

__all__ = ["classes_of", "ids_of", "labels_of"]


def classes_of(dataset: object) -> Sequence[str]:
    """The classes that the labels number, if it is a data set of ours and says so.

    In others labels may be mapped, to a model's numbers.
    """
    if isinstance(dataset, Subset):
        return classes_of(dataset.dataset)
    return dataset.classes if isinstance(dataset, ImageArrays | ImageFiles) else ()


def ids_of(dataset: object) -> Sequence[str]:
    """The id of every image: what the data set says, or its position."""
    if isinstance(dataset, Subset):
        inner = ids_of(dataset.dataset)
        return [inner[index] for index in dataset.indices]
    count = len(dataset)  # type: ignore[arg-type]  # checked
    ids = getattr(dataset, "ids", None)
    if ids is None:
        return [str(index) for index in range(count)]
    if len(ids) != count:
        raise ValueError(f"the data set has {count} images and {len(ids)} ids; give one an image")
    return [str(name) for name in ids]


def labels_of(dataset: object) -> Sequence[object] | None:
    """The label of every image, if the data set lists them."""
    if isinstance(dataset, Subset):
        inner = labels_of(dataset.dataset)
        return None if inner is None else [inner[index] for index in dataset.indices]
    labels = getattr(dataset, "labels", None)
    listed = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else labels
    count = len(dataset)  # type: ignore[arg-type]  # checked
    return listed if isinstance(listed, Sequence) and len(listed) == count else None
