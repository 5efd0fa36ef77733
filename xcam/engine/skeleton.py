"""A net without weights on the meta device, where a pass finds shapes and the graph alone."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["ShapeInference", "infer", "skeleton"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Operations whose result has the shape and, of floating-point numbers, the type of the input.
_ELEMENTWISE = frozenset(
    {"gelu", "hardsigmoid", "hardswish", "mish", "relu", "relu6", "sigmoid", "silu"}
)
_IN_PLACE = frozenset(f"{name}_" for name in _ELEMENTWISE)


def skeleton(net: nn.Module) -> nn.Module:
    """Copy a net in eval mode without its hooks, on the meta device, where it takes no memory."""
    memo: dict[int, Any] = {}
    for parameter in net.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=False)
    for buffer in net.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    for module in net.modules():
        for kind in _HOOKS:
            memo[id(getattr(module, kind))] = type(getattr(module, kind))()
        for value in vars(module).values():  # which deepcopy takes apart and builds anew
            if value.__class__ is OrderedDict and not value:
                memo[id(value)] = OrderedDict()
    copied = copy.deepcopy(net, memo)
    for module in copied.modules():
        module.training = False
    return copied


class ShapeInference(TorchDispatchMode):
    """A block in which operations on meta tensors are done by `infer`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Torch would import its compiler, which takes seconds, and ask it at each operation. No
        # pass in such a block is compiled.
        return False

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """Run an operation."""
        return infer(func, args, kwargs or {})


def infer(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:  # noqa: ANN401
    """Run an operation below autograd; on meta tensors norms and activations by their shape alone.

    Torch has these as decompositions in Python, which take a millisecond each to arrive there.
    """
    given: Any = args[0] if args else None
    is_known = func.namespace == "aten" and isinstance(given, Tensor) and given.is_meta
    if not is_known or not given.is_floating_point():
        return func(*args, **kwargs)
    match func.overloadpacket.__name__:
        case name if name in _ELEMENTWISE:
            return torch.empty_like(given)
        case name if name in _IN_PLACE:
            return given
        case "_safe_softmax" if len(args) == 2 and not kwargs:
            return torch.empty_like(given)
        case "addmm" if not kwargs and args[1].shape[-1:] == args[2].shape[:1]:
            bias, (rows, _), (_, columns) = given, args[1].shape, args[2].shape
            if bias.shape == (columns,):
                return args[1].new_empty(rows, columns)
        case "native_batch_norm" if args[5] is False:
            return torch.empty_like(given), given.new_empty(0), given.new_empty(0)
        case "native_layer_norm":
            kept = len(args[1])
            means = given.new_empty((*given.shape[: given.ndim - kept], *[1] * kept))
            return torch.empty_like(given, memory_format=torch.contiguous_format), means, means
    return func(*args, **kwargs)
