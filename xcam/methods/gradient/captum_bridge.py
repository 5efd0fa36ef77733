"""Backpropagation through ReLUs by another rule, by captum: for three methods."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from xcam.core import Output, Target
from xcam.engine import eager, find_module, forward, gradients, unwrap
from xcam.methods.gradient.input_gradients import no_gradient

__all__ = ["modified_backprop"]


def modified_backprop(
    model: nn.Module,
    images: Tensor,
    target: Target,
    rule: Literal["GuidedBackprop", "Deconvolution"],
    output: Output,
    within: str | None = None,
) -> Tensor:
    """The score's gradient at the images, with the ReLUs' backward pass changed by captum.

    captum changes the ReLU modules that it finds in the net it is given. It is given one ReLU of
    ours, which stands in for each ReLU and ReLU6 that the model calls, as module or function, in
    place or not: one that is called twice is no trouble, and the model gets no hook. What rectifies
    by another name (`clamp(min=0)`, `maximum`, LeakyReLU, Threshold) keeps its own gradient.

    Args:
        model: The classifier.
        images: (B, C, H, W).
        target: Bound with this pass if it is not yet.
        rule: captum's class.
        output: What of the output is differentiated.
        within: The module whose ReLUs are changed; None for all.

    Returns:
        (B, C, H, W).

    Raises:
        TypeError: A scripted module, whose ReLUs cannot be seen, would have to be changed.
        UnknownNameError: The model has no module `within`.
        ModelOutputError: The score does not depend on the images.
    """
    import captum.attr

    net = unwrap(model)
    module = net if within is None else find_module(net, within)[1]
    _refuse_scripted(module)
    stand_in = _StandIn(everywhere=within is None)

    def scores(leaf: Tensor) -> Tensor:
        prediction = forward.call(net, leaf)
        if not target.bound:
            target.bind(prediction)
        return _checked(target.scores(prediction, output=output), stand_in, within)

    with ExitStack() as stack:
        stack.enter_context(gradients(net))
        stack.enter_context(eager())
        if within is not None:
            stack.callback(module.register_forward_pre_hook(stand_in.enter).remove)
            stack.callback(module.register_forward_hook(stand_in.leave).remove)
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Setting backward hooks on ReLU activations")
        stack.enter_context(stand_in)
        method = getattr(captum.attr, rule)(_Net(scores, stand_in.relu))
        gradient: Tensor = method.attribute(images.detach().clone().requires_grad_())
    return gradient.detach()


def _refuse_scripted(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            which = f"{name!r} of the model" if name else "the model"
            raise TypeError(
                f"the ReLUs of scripted modules cannot be guided, and {which} is scripted; give "
                "the nn.Module that it was made from"
            )


class _Net(nn.Module):
    """What captum sees: from images to scores, with a single ReLU to change."""

    def __init__(self, scores: Callable[[Tensor], Tensor], relu: nn.ReLU) -> None:
        super().__init__()
        self.scores = scores
        self.relu = relu

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(images)


class _StandIn(TorchFunctionMode):
    """Lets a module of ours compute whatever ReLU is called while this is active."""

    def __init__(self, everywhere: bool) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.calls = 0
        self.depth = int(everywhere)

    def enter(self, *_: object) -> None:
        self.depth += 1

    def leave(self, *_: object) -> None:
        self.depth -= 1

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
        # A view has a gradient of its own: captum changes all of what arrives at a ReLU's input,
        # also through another branch that reads the same tensor.
        rectified = self.relu(values.view_as(values))
        if highest is not None:
            rectified = rectified.clamp(max=highest)
        return values.copy_(rectified) if inplace else rectified


_Call = tuple[Tensor, float | None, bool]  # a ReLU's input, its upper bound, whether it is in place


def _relu(input: Tensor, inplace: bool = False) -> _Call:  # noqa: A002
    return input, None, inplace


def _relu_(input: Tensor) -> _Call:  # noqa: A002
    return input, None, True


def _relu6(input: Tensor, inplace: bool = False) -> _Call:  # noqa: A002
    return input, 6.0, inplace


def _hardtanh(
    input: Tensor,  # noqa: A002
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,
) -> _Call | None:
    return (input, max_val, inplace) if min_val == 0 else None  # nn.ReLU6 calls it so


_RECTIFIERS: dict[Any, Callable[..., _Call | None]] = {
    F.relu: _relu,
    torch.relu: _relu,
    Tensor.relu: _relu,
    torch.relu_: _relu_,
    Tensor.relu_: _relu_,
    F.relu6: _relu6,
    F.hardtanh: _hardtanh,
}


def _checked(scores: Tensor, stand_in: _StandIn, within: str | None) -> Tensor:
    if not scores.requires_grad:
        raise no_gradient()
    if not stand_in.calls:
        where = "the model" if within is None else f"module {within!r}"
        forward.note(
            f"{where} calls no ReLU, so that nothing is rectified on the way back and the map is "
            "the plain gradient, as of 'saliency'"
        )
    return scores
