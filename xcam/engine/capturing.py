"""Reading and changing the output of one layer during a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xcam.engine import forward
from xcam.engine.restore import gradients, untouched
from xcam.engine.wrappers import Layer, eager, find_module, unwrap
from xcam.errors import LayerError

__all__ = ["Capture", "capture", "replaced"]


class Capture:
    """One layer's output as the start of the graph; made by `capture`.

    Attributes:
        layer: The layer's name.
        activation: The layer's output of the last forward, a leaf that requires grad.
        calls: How often the layer was called in the last forward; the activation is of the last.
    """

    def __init__(self, net: nn.Module, layer: str, grad: bool) -> None:
        """Use `capture`, which hooks and unhooks."""
        self.layer = layer
        self._grad = grad
        self._net = net
        self._leaf: Tensor | None = None
        self._calls = 0
        self._open = False
        self._differentiating = False

    def __call__(self, images: Tensor) -> Any:  # noqa: ANN401
        """The model's output for (B, C, H, W) images, with the graph from the layer on.

        Raises:
            LayerError: The layer was not called, or its output holds no floating-point tensor.
        """
        output = forward.call(self._forward, images.detach())
        if self._leaf is None:
            raise _unread(self.layer, self._calls)
        if self._calls > 1 and self.layer != forward.current().default_layer:
            forward.note(
                f"layer {self.layer!r} is called {self._calls} times in a forward pass; the map is "
                "of the last call"
            )
        return output

    @property
    def calls(self) -> int:
        """How often the layer was called in the last forward."""
        return self._calls

    @property
    def activation(self) -> Tensor:
        """The layer's output of the last forward."""
        if self._leaf is None:
            raise RuntimeError("no forward pass has been captured yet")
        return self._leaf

    def gradient(self, scores: Tensor) -> Tensor:
        """∂ Σ scores / ∂ activation, of the activation's shape.

        Raises:
            LayerError: The scores do not depend on the layer through differentiable operations.
        """
        self._differentiating = True  # a checkpointed layer runs again inside this
        try:
            gradient = _gradient(scores, self.activation)
        finally:
            self._differentiating = False
        if gradient is None:
            raise LayerError(
                f"the score has no gradient at layer {self.layer!r}: the layer does not lead to "
                "it, or the model cuts the graph after it (no_grad, detach, reentrant "
                "checkpointing); choose another layer, or a method without gradients"
            )
        return gradient

    def _forward(self, images: Tensor) -> Any:  # noqa: ANN401
        self._leaf, self._calls, self._open = None, 0, True
        try:
            return self._net(images)
        finally:
            self._open = False

    def _hook(self, _module: nn.Module, _inputs: object, output: object) -> object:
        # A bound method, not a closure: it survives a deepcopy of the model. Another capture's
        # forward passes through; the rerun of a checkpointed layer must build the same graph.
        if not (self._open or self._differentiating):
            return None
        self._calls += self._open
        return _replace_first(output, self._start_graph)

    def _start_graph(self, tensor: Tensor) -> Tensor:
        # Out of the inference mode that a model may have entered by itself: no leaf can be there.
        with torch.inference_mode(False), torch.set_grad_enabled(self._grad):
            leaf = tensor.clone() if tensor.is_inference() else tensor
            leaf = leaf.detach().requires_grad_(self._grad)
            if self._open:
                self._leaf = leaf
            return leaf.clone()  # an in-place ReLU behind the layer must not change the leaf


@contextmanager
def capture(model: nn.Module, layer: Layer, grad: bool = True) -> Iterator[Capture]:
    """Runs a model so that the graph starts at a layer's output.

    Exact, at the price of a plain forward: everything before the layer keeps no graph. Wrappers
    are taken off and compiled code runs eagerly, since it would skip the hook.

    Args:
        model: The classifier.
        layer: A name as in `model.named_modules()`, or the module.
        grad: Whether a gradient will be asked for; without, no graph is kept at all.

    Yields:
        A `Capture`: call it on images, read `.activation`, ask it for `.gradient(scores)`.
    """
    net = unwrap(model)
    name, module = find_module(net, layer)
    tap = Capture(net, name, grad)
    with ExitStack() as stack:
        stack.enter_context(gradients(net) if grad else torch.no_grad())
        stack.enter_context(untouched(net))
        stack.enter_context(eager())
        stack.callback(module.register_forward_hook(tap._hook).remove)
        yield tap


@contextmanager
def replaced(
    model: nn.Module, layer: Layer, change: Callable[[Tensor], Tensor]
) -> Iterator[Callable[[Tensor], Any]]:
    """Runs a model with a layer's output changed, without a graph.

    Args:
        model: The classifier.
        layer: A name as in `model.named_modules()`, or the module.
        change: From the layer's output to what the rest of the model gets instead.

    Yields:
        What runs the model: from (R, C, H, W) images to its output. It raises a `LayerError` if
        the layer was not called, or its output holds no floating-point tensor.
    """
    net = unwrap(model)
    name, module = find_module(net, layer)
    calls = changes = 0

    def hook(_module: nn.Module, _inputs: object, output: object) -> object:
        nonlocal calls, changes
        changed = _replace_first(output, change)
        calls, changes = calls + 1, changes + (changed is not None)
        return changed

    def run(images: Tensor) -> Any:  # noqa: ANN401
        nonlocal calls, changes
        calls = changes = 0
        output = forward.call(net, images)
        if not changes:
            raise _unread(name, calls)
        return output

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(untouched(net))
        stack.enter_context(eager())
        stack.callback(module.register_forward_hook(hook).remove)
        yield run


def _unread(layer: str, calls: int) -> LayerError:
    if calls:
        return LayerError(
            f"the output of layer {layer!r} holds no floating-point tensor in a tensor, tuple, "
            "list or dict; choose a layer inside or behind it"
        )
    return LayerError(
        f"layer {layer!r} was not called as a module during the forward pass; choose the layer "
        "around it"
    )


def _gradient(scores: Tensor, leaf: Tensor) -> Tensor | None:
    if not scores.requires_grad:
        return None
    try:
        (gradient,) = torch.autograd.grad(scores.sum(), leaf, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        return None
    return gradient


def _replace_first(output: object, change: Callable[[Tensor], Tensor]) -> object:
    """The output with its first floating-point tensor changed; None if there is none."""
    if isinstance(output, Tensor):
        return change(output) if output.is_floating_point() else None
    if isinstance(output, dict):
        for key, value in output.items():
            changed = _replace_first(value, change)
            if changed is not None:
                copy = output.copy()
                copy[key] = changed
                return copy
    if isinstance(output, tuple | list):
        for index, value in enumerate(output):
            changed = _replace_first(value, change)
            if changed is not None:
                items = [*output[:index], changed, *output[index + 1 :]]
                return output._make(items) if hasattr(output, "_make") else type(output)(items)
    return None
