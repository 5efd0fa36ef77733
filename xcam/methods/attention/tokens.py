"""The attention among a transformer's tokens, for the methods that follow it to the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xcam.core import Output, Target
from xcam.engine import eager, forward, gradients, unwrap
from xcam.engine.restore import untouched
from xcam.engine.shared import shareable
from xcam.errors import LayerError
from xcam.methods.attention.recording import (
    AttentionRecorder,
    explain_checkpoints,
    without_checkpoints,
)
from xcam.methods.attention.token_search import TokenNet

__all__ = [
    "attend",
    "average_heads",
    "differentiate",
    "differentiate_attention",
    "follow",
    "read_tokens",
    "recording",
]


def attend(model: nn.Module, images: Tensor, target: Target) -> tuple[Tensor, ...]:
    """Return the mean of the heads of each attention, (B, T, T), and bind the target.

    One by which the net pools is (B, 1, T).
    """
    matrices, logits = _attend(model, images, target)
    if not target.bound:  # since another method has made this pass
        target.bind(logits)
    return matrices


@shareable
def _attend(
    model: nn.Module, images: Tensor, target: Target
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    with torch.no_grad(), recording(model, grad=False) as (recorder, run):
        target.bind(forward.call(run, images))
        return tuple(average_heads(_widen(one)) for one in recorder.matrices), target.logits


def differentiate_attention(
    model: nn.Module, images: Tensor, target: Target, output: Output, count: int
) -> list[tuple[Tensor, Tensor]]:
    """Return each attention (B, heads, T, T) with the score's gradient there; bind the target.

    The first `count` of them: others are not read by the scores.
    """
    matrices, found, logits = _differentiate(model, images, target, output, count)
    if not target.bound:
        target.bind(logits)
    return [*zip(matrices, found, strict=True)]


@shareable
def _differentiate(
    model: nn.Module, images: Tensor, target: Target, output: Output, count: int
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor | None]:
    with gradients(model), recording(model, grad=True) as (recorder, run):
        prediction = forward.call(run, images)
        target.bind(prediction)
        scores = target.scores(prediction, output=output)
        found = differentiate(scores, recorder.nodes[:count])
        matrices = tuple(_widen(matrix.detach()) for matrix in recorder.matrices[:count])
        pairs = zip(found, matrices, strict=True)
        return matrices, tuple(one.view_as(matrix) for one, matrix in pairs), target.logits


def differentiate(scores: Tensor, nodes: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradient of the sum of the scores at each attention, in float32 at least.

    Raises:
        LayerError: The scores do not depend on one of them through differentiable operations.
    """
    found: Sequence[Tensor | None] = [None] * len(nodes)
    if scores.requires_grad:
        with explain_checkpoints():
            found = torch.autograd.grad(scores.sum(), [*nodes], allow_unused=True)
    if any(one is None for one in found):
        raise LayerError(
            "the score has no gradient at the net's attention: the model cuts the graph after it "
            "(no_grad, detach, reentrant checkpointing); use a method without gradients, such as "
            "'attention_rollout'"
        )
    return [_widen(one) for one in found if one is not None]


@contextmanager
def recording(
    model: nn.Module, grad: bool
) -> Iterator[tuple[AttentionRecorder, Callable[[Tensor], Any]]]:
    """Yield what records a net's attention, and what runs the net so that it does."""
    net = unwrap(model)
    recorder = AttentionRecorder(grad)

    def run(images: Tensor) -> Any:  # noqa: ANN401
        recorder.clear()
        with recorder:
            return net(images)

    with untouched(net), eager(), without_checkpoints(net):
        yield recorder, run


def average_heads(matrix: Tensor) -> Tensor:
    """Return the mean of an attention's heads, (B, queries, keys)."""
    return matrix.mean(1) if matrix.ndim == 4 else matrix


def follow(net: TokenNet, relevance: Tensor, pooling: Tensor | None) -> Tensor:
    """Return how relevant each token is for what the scores read, (B, T).

    Args:
        net: How the net attends.
        relevance: (B, T, T), of each token at the input for each token at the output.
        pooling: (B, 1, T), of each token at the output for what pools them; None if nothing does.
    """
    if pooling is not None:
        return (pooling @ relevance)[:, 0]
    return relevance[:, list(net.rows)].mean(1)


def read_tokens(net: TokenNet, values: Tensor) -> Tensor:
    """Return a value a token (B, T) as a map (B, h, w) of the patches."""
    return net.layout.read(values[..., None])[:, 0]


def _widen(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
