"""The score's gradient at the images or at changed copies of them, for the gradient family."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from xcam.core import Output, Reduce, Target
from xcam.core.maps import reduce_channels
from xcam.engine import eager, forward, gradients
from xcam.engine.chunks import chunks
from xcam.engine.clean import bind_clean_pass
from xcam.engine.shared import shareable
from xcam.errors import ModelOutputError

__all__ = [
    "CALM_NOISE",
    "average_noisy_gradients",
    "compute_clean_gradients",
    "compute_input_gradients",
    "differentiate_sum",
    "iterate_copy_gradients",
    "iterate_noisy_gradients",
    "make_no_gradient_error",
    "make_reduction",
]

CALM_NOISE: Mapping[str, object] = {
    "n_samples": 50,
    "noise": 0.25,
    "reduce": "abs_max",
    "reduce_each": True,
    "output": "logit",
}
"""The preset of CALM's published code, for the methods that average over noisy copies."""


def compute_clean_gradients(
    model: nn.Module, images: Tensor, target: Target, output: Output
) -> Tensor:
    """Return ∂ score / ∂ image at the images as they are, and bind the target with this pass.

    See `compute_input_gradients`, whose result is shared here between methods.
    """
    gradient, logits = _differentiate_clean_pass(model, images, target, output)
    if not target.bound:
        target.bind(logits)
    return gradient


@shareable
def _differentiate_clean_pass(
    model: nn.Module, images: Tensor, target: Target, output: Output
) -> tuple[Tensor, Tensor | None]:
    return compute_input_gradients(model, images, target, output), target.logits


def compute_input_gradients(
    model: nn.Module, images: Tensor, target: Target, output: Output, rows: Tensor | None = None
) -> Tensor:
    """Return ∂ score / ∂ image, even under the caller's `no_grad` or `inference_mode`.

    The scores of all rows are summed before the backward pass, which is exact since a model in
    eval mode keeps its images apart.

    Args:
        model: The classifier.
        images: (R, C, H, W).
        target: Bound with this pass if it is not yet.
        output: What of the output is differentiated.
        rows: (R,) int64, the image of the chunk that each row belongs to; None for its images in
            their order.

    Returns:
        (R, C, H, W).

    Raises:
        ModelOutputError: The score does not depend on the images.
    """
    # A compiled model runs eagerly: its backward pass would first have to be compiled, for minutes.
    with gradients(model), eager():
        leaf = images.detach().clone().requires_grad_()
        prediction = forward.call(model, leaf)
        if not target.bound:
            target.bind(prediction)
        return differentiate_sum(target.scores(prediction, rows, output), leaf)


def differentiate_sum(scores: Tensor, leaf: Tensor) -> Tensor:
    """Return ∂ Σ scores / ∂ leaf, in the shape of the leaf.

    Raises:
        ModelOutputError: The scores do not depend on the leaf.
    """
    gradient: Tensor | None = None
    if scores.requires_grad:
        (gradient,) = torch.autograd.grad(scores.sum(), leaf, allow_unused=True)
    if gradient is None:
        raise make_no_gradient_error()
    return gradient


def make_no_gradient_error() -> ModelOutputError:
    """Return the error for a score that does not depend on the images."""
    return ModelOutputError(
        "the score has no gradient at the images: the model cuts the graph (no_grad, detach, "
        "argmax, quantized layers), or the target callable does not read the output; use a method "
        "that needs no gradient, such as 'rise'"
    )


def iterate_copy_gradients(
    model: nn.Module,
    images: Tensor,
    target: Target,
    output: Output,
    copies: int,
    change: Callable[[Tensor, list[int]], Tensor],
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield the gradients at several changed copies of each image, a chunk at a time.

    Args:
        model: The classifier.
        images: (B, C, H, W).
        target: Bound.
        output: What of the output is differentiated.
        copies: How many of each image; copy by copy, so that every image's first comes first.
        change: From (R,) image numbers and R copy numbers to the (R, C, H, W) changed images.

    Yields:
        Of R of the B·copies pairs: the copy numbers, the image numbers (R,) int64, and the
        gradients (R, C, H, W) in at least float32.
    """

    def step(part: slice) -> tuple[list[int], Tensor, Tensor]:
        pairs = range(part.start, part.stop)
        numbers = [pair // len(images) for pair in pairs]
        rows = torch.tensor([pair % len(images) for pair in pairs], device=images.device)
        gradient = compute_input_gradients(model, change(rows, numbers), target, output, rows)
        return numbers, rows, gradient.to(torch.promote_types(gradient.dtype, torch.float32))

    for _, found in chunks(len(images) * copies, step, images, "gradients"):
        yield found


def iterate_noisy_gradients(
    model: nn.Module,
    images: Tensor,
    target: Target,
    output: Output,
    samples: int,
    noise: float,
    seed: int,
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield the gradients at `samples` noisy copies of each image; see `iterate_copy_gradients`.

    The noise is N(0, (noise · (max x − min x))²) with the range of each image. The k-th copy's
    noise depends on the seed and on k alone, and is the same for every image.
    """
    images = images.detach()
    lowest, highest = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    sigma = noise * (highest - lowest)

    def change(rows: Tensor, copies: list[int]) -> Tensor:
        drawn = {copy: _normal(images.shape[1:], seed, copy) for copy in set(copies)}
        noises = torch.stack([drawn[copy] for copy in copies]).to(images)
        return images[rows] + sigma[rows] * noises

    return iterate_copy_gradients(model, images, target, output, samples, change)


def average_noisy_gradients(
    model: nn.Module,
    images: Tensor,
    target: Target,
    output: Output,
    samples: int,
    noise: float,
    seed: int,
    transform: Callable[[Tensor], Tensor] = torch.clone,
) -> Tensor:
    """Return the mean over noisy copies of the transformed gradients, (B, C, H, W) or (B, H, W)."""
    bind_clean_pass(model, images, target)
    total: Tensor | None = None
    for _, rows, gradient in iterate_noisy_gradients(
        model, images, target, output, samples, noise, seed
    ):
        transformed = transform(gradient)
        if total is None:
            total = transformed.new_zeros(len(images), *transformed.shape[1:])
        total.index_add_(0, rows, transformed)
    return cast(Tensor, total) / samples


def make_reduction(reduce: Reduce, each: bool) -> Callable[[Tensor], Tensor]:
    """Return what is done to each gradient: its channels are reduced, or it is left as it is."""
    return partial(reduce_channels, reduce=reduce) if each else torch.clone


def _normal(shape: torch.Size, seed: int, index: int) -> Tensor:
    # Mixed by NumPy, so that sample 1 of seed 0 is not sample 0 of seed 1.
    mixed = int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> 1)
    return torch.randn(shape, generator=torch.Generator().manual_seed(mixed))
