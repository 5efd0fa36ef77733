"""Finding out how a transformer attends among its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from xcam.engine import eager, forward, gradients, unwrap
from xcam.engine.hints import read_hints
from xcam.engine.layout import Layout, describe_readings, list_token_layouts
from xcam.engine.paths import find_nan_gradient, find_scores
from xcam.engine.restore import rerun_overwritten, untouched
from xcam.engine.structure import remember
from xcam.engine.trace import hooks, output_tensors
from xcam.engine.wrappers import check_layers, select_first
from xcam.errors import LayerError
from xcam.methods.attention.recording import (
    AttentionRecorder,
    explain_checkpoints,
    without_checkpoints,
)
from xcam.sentences import pluralize

__all__ = ["TokenNet", "find_token_net"]


@dataclass(frozen=True)
class TokenNet:
    """How a net attends among its tokens.

    Attributes:
        depth: The number of attentions of all tokens to all tokens, each a matrix (T, T).
        pools: Whether one more attention follows, by which a query of its own reads the tokens for
            the scores.
        rows: The tokens that the scores read behind the last attention, all if it pools: the class
            token, or the patches.
        layout: Where the patches are among the tokens.
        blocks: The module around each of the attentions that returns the tokens; None where there
            is none.
    """

    depth: int
    pools: bool
    rows: tuple[int, ...]
    layout: Layout
    blocks: tuple[str | None, ...]


def find_token_net(model: nn.Module, images: Tensor) -> TokenNet:
    """Find out, in a pass of the first image, how a net attends; once a model and image shape.

    Raises:
        LayerError: It does not attend, or not among all tokens of the image.
    """
    net = unwrap(model)
    check_layers(net)
    key = ("attention", images.shape[1:], images.dtype, images.device)
    return remember(net, key, lambda: _search(net, images))


def _search(net: nn.Module, images: Tensor) -> TokenNet:
    image = select_first(net, images)
    with gradients(net), untouched(net), eager(), without_checkpoints(net):
        return rerun_overwritten(lambda: _search_pass(net, image))


def _search_pass(net: nn.Module, image: Tensor) -> TokenNet:
    inside: list[str] = []
    around: list[tuple[str, ...]] = []
    shapes: dict[str, torch.Size] = {}
    recorder = AttentionRecorder(grad=True, on_matrix=lambda: around.append((*inside,)))

    def enter(name: str, _inputs: object) -> None:
        inside.append(name)

    def leave(name: str, _inputs: object, output: object) -> None:
        inside.pop()
        tensor = next(output_tensors(output), None)
        if tensor is not None:
            shapes[name] = tensor.shape

    with ExitStack() as stack:
        for name, module in net.named_modules():
            if name and not isinstance(module, torch.jit.ScriptModule):
                both = hooks(module, partial(enter, name), partial(leave, name))
                stack.enter_context(both)
        stack.enter_context(recorder)
        output = forward.call(net, image)
    sizes = [_read_size(matrix) for matrix in recorder.matrices]
    scores = find_scores(output, len(image))
    pools = len(sizes) > 1 and sizes[-1][1] == 1 < sizes[-1][2]
    if pools and _is_unread(scores, recorder):
        pools, sizes = False, sizes[:-1]
    depth = len(sizes) - pools
    _check_sizes(sizes, pools)
    tokens = sizes[0][2]
    layout = _find_layout(net, image, tokens)
    last = recorder.nodes[depth - 1]
    rows = tuple(range(tokens)) if pools else _find_rows(scores, last, tokens)
    blocks = tuple(_find_block(around, number, shapes, tokens) for number in range(depth))
    return TokenNet(depth, pools, rows, layout, blocks)


def _read_size(matrix: Tensor) -> tuple[int, int, int]:
    """Return the length, the number of queries and the number of keys of a matrix."""
    return len(matrix), matrix.shape[-2], matrix.shape[-1]


def _check_sizes(sizes: Sequence[tuple[int, int, int]], pools: bool) -> None:
    if not sizes:
        raise LayerError(
            "the model computes no attention that can be seen (a softmax, nn.MultiheadAttention "
            "or torch's scaled_dot_product_attention); explain a vision transformer, such as "
            "xcam.models.load('xcam:token_net'), or use 'rise'"
        )
    tokens = sizes[0][2]
    expected = [(1, tokens, tokens)] * (len(sizes) - pools) + [(1, 1, tokens)] * pools
    for size, fits in zip(sizes, expected, strict=True):
        if size != fits:
            queries = "1 query" if size[1] == 1 else f"{size[1]} queries"
            raise LayerError(
                f"the model does not attend from all tokens of the image to all, so that its "
                "attention cannot be followed: for one image a layer has "
                f"{pluralize(size[0], 'window')} of {queries} and {pluralize(size[2], 'key')}; "
                "use a method that reads a layer, such as 'gradcam'"
            )


def _find_layout(net: nn.Module, image: Tensor, tokens: int) -> Layout:
    size = (image.shape[2], image.shape[3])
    found = list_token_layouts(tokens, size, read_hints(net, image.shape[1]))
    if len(found) == 1:
        return found[0]
    readings = describe_readings(found) or "are not a class token and patches of the image"
    raise LayerError(
        f"the {tokens} tokens of the model {readings}, for images of "
        f"{size[0]}x{size[1]}; use a method that does not need it, such as 'rise'"
    )


def _is_unread(scores: Sequence[Tensor], recorder: AttentionRecorder) -> bool:
    """Return whether the scores depend on the attention before the last, and not on the last."""
    with explain_checkpoints():
        before, last = (find_nan_gradient(scores, node) for node in recorder.nodes[-2:])
    return before is not None and last is None


def _find_rows(scores: Sequence[Tensor], last: Tensor, tokens: int) -> tuple[int, ...]:
    """Return the tokens of the last attention on which the scores depend."""
    with explain_checkpoints():
        gradient = find_nan_gradient(scores, last)
    if gradient is None:
        return (0,)
    read = gradient.view(-1, tokens, tokens).isnan().any(2).any(0)
    return tuple(number for number, is_read in enumerate(read.tolist()) if is_read)


def _find_block(
    around: Sequence[tuple[str, ...]], number: int, shapes: dict[str, torch.Size], tokens: int
) -> str | None:
    """Return the outermost module around an attention, and no other, that returns the tokens."""
    others = {name for other in (*around[:number], *around[number + 1 :]) for name in other}
    for name in around[number]:
        shape = shapes.get(name, torch.Size())
        if name not in others and len(shape) == 3 and shape[1] == tokens:
            return name
    return None
