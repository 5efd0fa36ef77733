"""The score's gradient at the images or at changed copies of them, for the gradient family."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from xcam.core import Output, Reduce, Target
from xcam.core.maps import reduce_channels
from xcam.engine import eager, forward, gradients
from xcam.engine.chunks import chunks
from xcam.engine.shared import shareable
from xcam.errors import ModelOutputError

__all__ = [
    "compute_clean_gradients",
    "compute_input_gradients",
    "differentiate_sum",
    "iterate_copies",
    "iterate_copy_gradients",
    "make_no_gradient_error",
    "make_reduction",
]


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
    """Yield the gradients (R, C, H, W) at changed copies of each image; see `iterate_copies`.

    Args:
        model: The classifier.
        images: (B, C, H, W).
        target: Bound.
        output: What of the output is differentiated.
        copies: How many of each image.
        change: Makes them.
    """

    def differentiate(changed: Tensor, rows: Tensor) -> Tensor:
        return compute_input_gradients(model, changed, target, output, rows)

    return iterate_copies(images, copies, change, differentiate, "gradients")


def iterate_copies(
    images: Tensor,
    copies: int,
    change: Callable[[Tensor, list[int]], Tensor],
    explain: Callable[[Tensor, Tensor], Tensor],
    label: str,
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield what several changed copies of each image give, a chunk at a time.

    Args:
        images: (B, C, H, W).
        copies: How many of each image; copy by copy, so that every image's first comes first.
        change: From (R,) image numbers and R copy numbers to the (R, C, H, W) changed images.
        explain: From these, and their (R,) image numbers, to (R, …) maps.
        label: For the progress bar.

    Yields:
        Of R of the B·copies pairs: the copy numbers, the image numbers (R,) int64, and the maps in
        at least float32.
    """

    def step(part: slice) -> tuple[list[int], Tensor, Tensor]:
        pairs = range(part.start, part.stop)
        numbers = [pair // len(images) for pair in pairs]
        rows = torch.tensor([pair % len(images) for pair in pairs], device=images.device)
        maps = explain(change(rows, numbers), rows)
        return numbers, rows, maps.to(torch.promote_types(maps.dtype, torch.float32))

    for _, found in chunks(len(images) * copies, step, images, label):
        yield found


def make_reduction(reduce: Reduce, each: bool) -> Callable[[Tensor], Tensor]:
    """Return what is done to each gradient: its channels are reduced, or it is left as it is."""
    return partial(reduce_channels, reduce=reduce) if each else torch.clone
