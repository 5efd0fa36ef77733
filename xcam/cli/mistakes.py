"""The pictures whose class a net gets wrong, the most confident mistakes first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from xcam.cli.photos import Photo

if TYPE_CHECKING:
    from torch import Tensor

    from xcam.models import Normalized

__all__ = ["choose_mistakes", "number_labels"]


def number_labels(
    photos: Sequence[Photo], classes: Sequence[str], net: Normalized, image: Tensor
) -> list[Photo]:
    """Return the pictures with labels as the net numbers its classes, by name.

    Args:
        photos: With labels of the data.
        classes: The names of the data's classes, if it names them.
        net: The classifier.
        image: (1, C, H, W), such as it takes.

    Raises:
        ValueError: The data has other classes than the net.
    """
    import torch

    from xcam._evaluate.classes import count_classes
    from xcam.data.categories import number_classes
    from xcam.models.categories import find_categories

    num_classes = count_classes(net, image)
    numbering = number_classes(classes, find_categories(net), lambda: num_classes)
    labels = torch.tensor([-1 if photo.label is None else photo.label for photo in photos])
    if numbering is not None:
        labels = numbering.translate(labels)
    beyond = next((label for label in labels.tolist() if not 0 <= label < num_classes), None)
    if beyond is not None:
        raise ValueError(f"label {beyond} is out of range: the net has {num_classes} classes")
    return [replace(photo, label=k) for photo, k in zip(photos, labels.tolist(), strict=True)]


def choose_mistakes(
    batches: Iterable[tuple[Sequence[Photo], Tensor]], net: Normalized, count: int
) -> tuple[list[Photo], int]:
    """Return the pictures that the net gets wrong with the highest probability, and how many are.

    Args:
        batches: Pictures, with labels as the net numbers them, and their tensors (B, C, H, W).
        net: The classifier.
        count: How many to return, at most.

    Raises:
        ValueError: `count` is not positive, or the net has a single output.
    """
    import torch

    from xcam.core import extract_logits
    from xcam.engine import forward, untouched

    if count < 1:
        raise ValueError(f"--worst takes a positive number, got {count}")
    found: list[tuple[float, int, Photo]] = []
    for photos, images in batches:
        with untouched(net), torch.no_grad():
            logits = extract_logits(forward.call(net, images), len(images))
        if logits.shape[1] < 2:
            raise ValueError("--worst needs a net with an output for each class, and it has one")
        highest, predicted = logits.softmax(1).max(1)
        for photo, share, k in zip(photos, highest.tolist(), predicted.tolist(), strict=True):
            if k != photo.label:
                found.append((-share, len(found), photo))
    return [photo for _, _, photo in sorted(found)[:count]], len(found)
