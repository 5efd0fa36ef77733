"""Backpropagation with another rule for the gradient of ReLUs."""

# ruff: noqa: A006 - `input` is the name of the argument in torch

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from xcam.core import Output, Target
from xcam.engine import find_module, forward, unwrap
from xcam.engine.trace import hooks
from xcam.engine.wrappers import describe_compiled
from xcam.errors import UnknownNameError
from xcam.methods.gradient.input_gradients import compute_input_gradients

__all__ = ["Rule", "rectified_gradients"]

Rule: TypeAlias = Literal["guided", "deconvnet"]


def rectified_gradients(
    model: nn.Module,
    images: Tensor,
    target: Target,
    rule: Rule,
    output: Output,
    within: str | None = None,
) -> Tensor:
    """Return the score's gradient at the images, with negative parts cut at each ReLU.

    Each ReLU and ReLU6 that the model calls counts, as a module or function, in place or not. Other
    functions that rectify (`clamp(min=0)`, `maximum`, LeakyReLU, Threshold) keep their gradient.

    Args:
        model: The classifier.
        images: (B, C, H, W).
        target: Bound with this pass if it is not yet.
        rule: `"guided"` keeps ReLU's own gradient and cuts what is negative in it; `"deconvnet"`
            cuts what is negative in the incoming gradient, whatever the ReLU's input was.
        output: What of the output is differentiated.
        within: The module whose ReLUs are changed; None for all.

    Returns:
        (B, C, H, W).

    Raises:
        TypeError: ReLUs of a scripted or exported module, which cannot be seen, are to be changed.
        UnknownNameError: The model has no module `within`.
        ModelOutputError: The score does not depend on the images.
    """
    net = unwrap(model)
    module = net if within is None else _find_within(net, within)
    _refuse_compiled(module)
    mode = _RectifiedMode(rule, active=within is None)
    with ExitStack() as stack:
        if within is not None:
            stack.enter_context(hooks(module, mode.enter_module, mode.leave_module))
            for part in list(module.modules())[1:]:
                stack.enter_context(hooks(part, mode.enter_part, mode.leave_part))
        stack.enter_context(mode)
        gradient = compute_input_gradients(net, images, target, output)
    if not mode.calls:
        where = "the model" if within is None else f"module {within!r}"
        forward.note(
            f"{where} calls no ReLU, so that nothing is rectified on the way back and the map is "
            "the plain gradient, as of 'saliency'"
        )
    return gradient


def _find_within(net: nn.Module, within: str) -> nn.Module:
    try:
        return find_module(net, within)[1]
    except UnknownNameError as error:
        raise UnknownNameError(
            f"within={within!r} must be the module whose ReLUs are changed, and {error}; give "
            "another name, or None for all ReLUs (in place of preset='whitebox' with output='prob',"
            " reduce='sum' and stretched=True)"
        ) from None


def _refuse_compiled(module: nn.Module) -> None:
    for name, part in module.named_modules():
        kind = describe_compiled(part)
        if kind:
            which = f"{name!r} of the model" if name else "the model"
            raise TypeError(
                f"the ReLUs of {kind} modules cannot be guided, and {which} is {kind}; give the "
                "nn.Module that it was made from"
            )


class _RectifiedReLU(torch.autograd.Function):
    """ReLU whose backward pass lets no negative gradient through."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rule: Rule) -> Tensor:  # noqa: ANN401 - torch's context
        rectified = values.relu()
        ctx.set_materialize_grads(False)  # no gradient from behind is none here, and not zero
        ctx.guided = rule == "guided"
        # By either rule, as torch's own ReLU does: a checkpointed block is computed again during
        # the backward pass, where torch suspends the mode, and must save tensors of the same shape.
        ctx.save_for_backward(rectified)
        return rectified

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None]:  # noqa: ANN401
        if gradient is None:
            return None, None
        (rectified,) = ctx.saved_tensors
        return (gradient * (rectified > 0) if ctx.guided else gradient).relu(), None


class _RectifiedMode(TorchFunctionMode):
    """A mode that replaces each ReLU that is called in this thread.

    A mode sees functions as well as modules, needs no change to the model, and is one thread's.
    """

    def __init__(self, rule: Rule, active: bool) -> None:
        super().__init__()
        self.rule = rule
        self.calls = 0
        self.depth = int(active)
        self.is_called = False

    def enter_module(self, *_: object) -> None:
        self.depth += 1
        self.is_called = True

    def leave_module(self, *_: object) -> None:
        self.depth -= 1

    # A Sequential whose layers a forward calls one by one is not called itself, but its parts are.
    # Parts of one that is called may be called elsewhere, too, where they do not count.

    def enter_part(self, *_: object) -> None:
        self.depth += not self.is_called

    def leave_part(self, *_: object) -> None:
        self.depth -= not self.is_called

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _types: object,
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
    ) -> object:
        keywords = keywords or {}
        read = _RECTIFIERS.get(function)
        call = read(*arguments, **keywords) if read and self.depth else None
        if call is None or not call[0].requires_grad:
            return function(*arguments, **keywords)
        values, highest, inplace = call
        self.calls += 1
        rectified: Tensor = _RectifiedReLU.apply(values, self.rule)
        if highest is not None:
            rectified = rectified.clamp(max=highest)
        return values.copy_(rectified) if inplace else rectified


def _read_hardtanh(
    values: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> _Call | None:
    return (values, max_val, inplace) if min_val == 0 else None  # how nn.ReLU6 calls it


_Call: TypeAlias = tuple[Tensor, float | None, bool]  # input, upper bound, whether in place

# Each takes the arguments of the function, by position or by torch's names.
_RECTIFIERS: dict[Any, Callable[..., _Call | None]] = {
    F.relu: lambda input, inplace=False: (input, None, inplace),
    F.relu6: lambda input, inplace=False: (input, 6.0, inplace),
    F.hardtanh: lambda input, *bounds, **more: _read_hardtanh(input, *bounds, **more),
    torch.relu: lambda input: (input, None, False),
    torch.relu_: lambda input: (input, None, True),
    Tensor.relu: lambda input: (input, None, False),
    Tensor.relu_: lambda input: (input, None, True),
}
