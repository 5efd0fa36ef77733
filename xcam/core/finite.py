"""Values that are not finite, found before an argmax, a rank or a mean hides them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from xcam.errors import ModelOutputError

__all__ = [
    "check_finite",
    "check_logits",
    "describe_unreadable",
    "find_unreadable",
    "mark_unreadable",
]


def find_unreadable(logits: Tensor) -> Tensor:
    """Return (R,) bool: the rows of logits (R, K) that decide for no class.

    They hold a NaN or +∞, or −∞ throughout. A single −∞ is a class that is ruled out.
    """
    return ~logits.amax(1).isfinite()


def mark_unreadable(values: Tensor, logits: Tensor) -> Tensor:
    """Return floating-point values (R,) read from logits (R, K), NaN where these are unreadable.

    Nothing waits for the device here: `check_finite` looks once, when all values are there.
    """
    return values.masked_fill(find_unreadable(logits), torch.nan)


def check_logits(logits: Tensor, images: Tensor | None = None) -> Tensor:
    """Return logits (R, K), or raise if those of an image decide for no class.

    Args:
        logits: One row an image.
        images: (R,), the numbers of the images, for the message; 0 to R − 1 by default.

    Raises:
        ModelOutputError: A row is unreadable, see `find_unreadable`.
    """
    unreadable = find_unreadable(logits)
    return _check(logits, unreadable, describe_unreadable, images, ModelOutputError)


def describe_unreadable(image: object) -> str:
    """Describe in a sentence that the logits of an image decide for no class."""
    return (
        f"the model's output for image {image} is not finite: check the weights and the "
        "normalization of the images"
    )


def check_finite(
    values: Tensor,
    describe: Callable[[int], str],
    images: Tensor | None = None,
    error: type[Exception] = ModelOutputError,
) -> Tensor:
    """Return values (B, …), or raise if those of an image are not finite.

    Args:
        values: One row an image.
        describe: Returns what is wrong, from the number of the first such image.
        images: (B,), the numbers of the images; 0 to B − 1 by default.
        error: What is raised.
    """
    faulty = ~values.flatten(1).isfinite().all(1) if values.ndim > 1 else ~values.isfinite()
    return _check(values, faulty, describe, images, error)


def _check(
    values: Tensor,
    faulty: Tensor,
    describe: Callable[[int], str],
    images: Tensor | None,
    error: type[Exception],
) -> Tensor:
    if bool(faulty.any()):
        row = int(faulty.nonzero()[0])
        raise error(describe(row if images is None else int(images[row])))
    return values
