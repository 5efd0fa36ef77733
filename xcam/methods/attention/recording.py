"""Recording the attention matrices of a pass, fused or not, checkpointed or not."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointError

from xcam.engine.structure import walk
from xcam.errors import LayerError

__all__ = ["AttentionRecorder", "explain_checkpoints", "without_checkpoints"]

_SOFTMAXES = {F.softmax, torch.softmax, Tensor.softmax}
_CHECKPOINTING = "grad_checkpointing"  # timm's
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


class AttentionRecorder(TorchFunctionMode):
    """A mode that records each attention matrix that is computed in this thread.

    Recorded are the softmax over the last axis of tensors of three or four axes, as written by
    hand, `F.scaled_dot_product_attention`, and `nn.MultiheadAttention`. Fused kernels never hold
    the matrix, so inside the mode they are replaced by the same computation step by step. A mode
    sees functions as well as modules, and needs no change to the model.

    Attributes:
        matrices: In the order of the calls, (B, heads, queries, keys) or (B, queries, keys), part
            of the graph where `grad` is set.
    """

    def __init__(self, grad: bool, on_matrix: Callable[[], None] = lambda: None) -> None:
        """Make the mode.

        Args:
            grad: Whether the graph starts at the first matrix, where it has not started before.
            on_matrix: Is called after each.
        """
        super().__init__()
        self.matrices: list[Tensor] = []
        # What holds them in the graph: of some it is another shape that leads to the scores.
        self.nodes: list[Tensor] = []
        self._grad, self._on_matrix = grad, on_matrix

    def clear(self) -> None:
        """Forget the matrices, before a pass."""
        self.matrices, self.nodes = [], []

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _types: object,
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
    ) -> object:
        """Run a function of torch, and record what it attends."""
        keywords = keywords or {}
        if function is F.scaled_dot_product_attention:
            return self._attend(*arguments, **keywords)
        if function is F.multi_head_attention_forward:
            return self._attend_with_heads(arguments, keywords)
        result = function(*arguments, **keywords)
        if function not in _SOFTMAXES or not isinstance(result, Tensor):
            return result
        axis = keywords["dim"] if "dim" in keywords else (*arguments, None)[1]
        is_matrix = result.ndim in (3, 4) and axis in (-1, result.ndim - 1)
        return self._record(result) if is_matrix else result

    def _record(self, matrix: Tensor) -> Tensor:
        if self._grad and not matrix.requires_grad:
            matrix = matrix.detach().requires_grad_()
        self.matrices.append(matrix)
        self.nodes.append(matrix)
        self._on_matrix()
        return matrix

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Compute torch's `scaled_dot_product_attention`, and record its matrix."""
        if enable_gqa:
            repeats = query.shape[-3] // key.shape[-3]
            key, value = (each.repeat_interleave(repeats, -3) for each in (key, value))
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        scores = (query * scale) @ key.transpose(-2, -1)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        matrix = scores.softmax(-1)
        matrix = self._record(matrix) if matrix.ndim in (3, 4) else matrix
        return matrix @ value

    def _attend_with_heads(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> object:
        """Compute torch's `multi_head_attention_forward`, and record its matrices."""
        bound = _MULTI_HEAD.bind(*arguments, **keywords)
        bound.apply_defaults()
        given = bound.arguments
        wanted = given["need_weights"], given["average_attn_weights"]
        query = given["query"]
        if self._grad and not query.requires_grad:
            # The same tensor is passed thrice: torch compares the identities.
            start = query.detach().requires_grad_()
            for name in ("query", "key", "value"):
                given[name] = start if given[name] is query else given[name]
        given |= {"need_weights": True, "average_attn_weights": False}
        output, weights = F.multi_head_attention_forward(*bound.args, **bound.kwargs)
        matrix = cast(Tensor, weights)
        self.matrices.append(matrix)
        # The matrix is a view of what was multiplied by the values, beside the way to the scores.
        self.nodes.append(matrix if matrix._base is None else matrix._base)
        self._on_matrix()
        if not wanted[0]:
            return output, None
        return output, matrix.mean(1) if wanted[1] else matrix


@contextmanager
def without_checkpoints(net: nn.Module) -> Iterator[None]:
    """Turn timm's checkpointing off: what is computed anew would not be recorded."""
    modules = [module for module in walk(net) if vars(module).get(_CHECKPOINTING)]
    try:
        for module in modules:
            vars(module)[_CHECKPOINTING] = False
        yield
    finally:
        for module in modules:
            vars(module)[_CHECKPOINTING] = True


@contextmanager
def explain_checkpoints() -> Iterator[None]:
    """Raise an error that names the cause where another checkpointing loses the attention."""
    try:
        yield
    except CheckpointError as error:
        raise LayerError(
            "the model computes its attention anew in the backward pass (checkpointing), where it "
            "cannot be recorded; turn checkpointing off, or use a method that reads a layer, such "
            "as 'gradcam'"
        ) from error
