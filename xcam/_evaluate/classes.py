"""Whether the labels of a data set are the classes of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from xcam._evaluate.scoring import model_device
from xcam.core import extract_logits
from xcam.engine import forward, untouched, unwrap

__all__ = ["check_classes", "class_count"]


def class_count(model: nn.Module, images: Tensor) -> int:
    """The number of classes that a model tells apart, from its output for images (B, C, H, W)."""
    with untouched(model), torch.no_grad():
        logits = extract_logits(
            forward.call(model, images.to(model_device(model, images))), len(images)
        )
    return logits.shape[1]


def check_classes(own: Sequence[str], models: Mapping[str, nn.Module], images: Tensor) -> None:
    """Refuses labels that number other classes than a model's.

    Args:
        own: The names of the classes that the labels number; none if they are the caller's numbers.
        models: By their names; those that name their classes must not have them in another order.
        images: (B, C, H, W), some of the data.

    Raises:
        ValueError: They are others, or in another order.
    """
    for name, model in models.items() if own else ():
        categories = tuple(getattr(unwrap(model), "categories", ()))
        count = len(categories) or class_count(model, images)
        reordered = set(own) == set(categories) and tuple(own) != categories
        if len(own) != max(count, 2) or reordered:
            some = ", ".join(own[:3]) + (", …" if len(own) > 3 else "")
            raise ValueError(
                f"the labels of the data are the numbers of its {len(own)} classes ({some}), and "
                f"{name!r} has {count} classes{', in another order' * reordered}: give a folder "
                "for each class, in the model's order, or a list with 'file label' a line; or "
                "explain what is predicted, and leave out metrics that need labels"
            )
