"""LeGrad."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Output, Target, extract_logits
from xcam.engine import forward, gradients, unwrap
from xcam.engine.trace import hooks, replace_first
from xcam.errors import LayerError, ModelOutputError
from xcam.methods.attention.token_search import find_token_net
from xcam.methods.attention.tokens import (
    average_heads,
    differentiate,
    read_tokens,
    recording,
)

__all__ = ["LeGrad"]


@dataclass(frozen=True)
class LeGrad(Method):
    """LeGrad: to which patches each layer would have to attend more, for a higher score.

    M = mean_l mean_hi (∂y_l/∂A_l,hij)⁺ for patch j; A_l is the attention of layer l, h its heads, i
    the token that attends (Bousselham et al., 2024, arXiv:2404.03214). y_l is the score that the
    net gives for the mean of the tokens behind layer l in place of all tokens behind the last one.

    Attributes:
        n_layers: How many of the last layers count; None for all.
        output: What of the output is y_l.

    Raises:
        LayerError: The net does not attend from all tokens to all, as Swin's windows don't, or no
            module of it returns the tokens behind each attention.
        ValueError: It has fewer layers.
    """

    n_layers: int | None = None
    output: Output = "logit"

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="legrad",
        title="LeGrad",
        paper="Bousselham et al., 2024, arXiv:2404.03214",
        family="attention",
        cost="1 forward + backward",
        signed=False,
        net={"name": "xcam:token_net"},
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return the maps, (B, h, w) at the size of the patches; see `Method.maps`."""
        net = find_token_net(model, images)
        if self.n_layers is not None and not 0 < self.n_layers <= net.depth:
            raise ValueError(
                f"n_layers must be from 1 to {net.depth}, since the model has {net.depth} layers "
                f"that attend, or None for all, got {self.n_layers}"
            )
        blocks = [block for block in net.blocks if block is not None]
        if len(blocks) < net.depth:
            raise LayerError(
                "no module of the model returns the tokens behind each of its attentions, which "
                "legrad scores; use 'attention_gradient'"
            )
        sensitivity = _differentiate_blocks(
            model, images, target, blocks, self.n_layers or net.depth, self.output
        )
        return read_tokens(net, sensitivity)


def _differentiate_blocks(
    model: nn.Module,
    images: Tensor,
    target: Target,
    blocks: list[str],
    count: int,
    output: Output,
) -> Tensor:
    """Return the mean over the last layers of each token's positive gradient, (B, T).

    All layers are scored in one pass: what follows the last block gets its tokens, and behind them,
    as further rows, the means of each layer's. Between blocks the graph is cut.
    """
    net = unwrap(model)
    last = len(blocks) - 1
    means: list[Tensor] = []

    def cut(tensor: Tensor) -> Tensor:
        means.append(tensor.mean(1, keepdim=True).expand_as(tensor))
        return tensor.detach()

    def stack_layers(tensor: Tensor) -> Tensor:
        return torch.cat([cut(tensor), *means[-count:]])

    with gradients(net), recording(net, grad=True) as (recorder, run), ExitStack() as stack:
        for number, block in enumerate(blocks):
            change = stack_layers if number == last else cut
            after = partial(_replace_tokens, change)
            stack.enter_context(hooks(net.get_submodule(block), after=after))

        def run_anew(images: Tensor) -> Any:  # noqa: ANN401
            means.clear()
            return run(images)

        try:
            prediction = forward.call(run_anew, images)
        except RuntimeError as error:
            if forward.out_of_memory(error) or len(means) < len(blocks):
                raise
            raise LayerError(
                f"what follows block {blocks[last]!r} of the model does not take the tokens of "
                "several layers at once, which legrad scores; use 'attention_gradient'"
            ) from error
        rows = torch.arange(len(images), device=images.device).repeat(count + 1)
        _bind(target, prediction, len(rows))
        scores = target.scores(prediction, rows, output)[len(images) :]
        matrices = recorder.matrices[len(blocks) - count : len(blocks)]
        found = differentiate(scores, recorder.nodes[len(blocks) - count : len(blocks)])
    layers = [
        average_heads(gradient.view_as(matrix).relu()).mean(1)
        for gradient, matrix in zip(found, matrices, strict=True)
    ]
    return torch.stack(layers).mean(0)


def _replace_tokens(change: Callable[[Tensor], Tensor], _inputs: object, output: object) -> object:
    return replace_first(output, change)


def _bind(target: Target, prediction: object, rows: int) -> None:
    """Bind the target with the first rows of an output, those of the images themselves."""
    try:
        logits = extract_logits(prediction, rows)
    except ModelOutputError:
        target.bind(prediction)  # which refuses it, unless a callable speaks for itself
        return
    target.bind(logits[: len(target.rows)])
