"""The caller's model: found in its wrappers, read from the inside, left as it was."""

from __future__ import annotations

import difflib
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xcam import forward
from xcam.errors import LayerError, ModelOutputError, UnknownNameError

__all__ = [
    "Capture",
    "Layer",
    "capture",
    "find_module",
    "gradients",
    "replaced",
    "untouched",
    "unwrap",
]

Layer = str | nn.Module | Sequence[str | nn.Module]


def unwrap(model: nn.Module) -> nn.Module:
    """The net inside `DataParallel`, `DistributedDataParallel` and compiled wrappers."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        inner = model.module if isinstance(model, parallel) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def find_module(model: nn.Module, layer: Layer) -> tuple[str, nn.Module]:
    """The name and module of a layer, given either, or a sequence of one.

    Raises:
        TypeError: `layer` is neither.
        UnknownNameError: The model has no such layer; the nearest names are listed.
        LayerError: More than one layer, or a module that is not part of the model.
    """
    net = unwrap(model)
    if isinstance(layer, Sequence) and not isinstance(layer, str):
        if len(layer) != 1:
            raise LayerError(f"give one layer a call, got {len(layer)}; explain once for each")
        layer = layer[0]
    names = {name: module for name, module in net.named_modules() if name}
    if isinstance(layer, nn.Module):
        inside = unwrap(layer)
        for name, module in names.items():
            if module is inside:
                return name, module
        kind = type(layer).__name__
        raise LayerError(f"the {kind} given as layer is not part of the model; give its name")
    if not isinstance(layer, str):
        raise TypeError(f"layer must be a name or a module of the model, got {layer!r}")
    if layer in names:
        return layer, names[layer]
    near = difflib.get_close_matches(layer, names, n=5, cutoff=0.4) or list(names)[-5:]
    raise UnknownNameError(f"the model has no layer {layer!r}; the nearest are {', '.join(near)}")


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Puts the model into eval mode with frozen parameters, and back, whatever happens.

    Restored are each module's mode, each parameter's `requires_grad` and `.grad`, each buffer's
    identity and values, and the global random states. Modes are set as flags, without calling
    `eval()`, which some modules override to merge weights.
    """
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    buffers = [
        (module, name, buffer, None if buffer is None else _Snapshot(buffer))
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    with _random_states():
        try:
            for module, _ in modes:
                module.training = False
            for parameter, _, _ in parameters:
                parameter.grad = None
                parameter.requires_grad_(False)
            yield
        finally:
            for module, training in modes:
                module.training = training
            for parameter, trainable, gradient in parameters:
                parameter.requires_grad_(trainable)
                parameter.grad = gradient
            for module, name, buffer, snapshot in buffers:
                module._buffers[name] = buffer
                if snapshot is not None:
                    snapshot.restore()


class _Snapshot:
    """A buffer and its values; PyTorch's version counter tells whether they were written to."""

    def __init__(self, buffer: Tensor) -> None:
        self.buffer = buffer
        self.values = buffer.clone()
        self.version = None if buffer.is_inference() else buffer._version

    def restore(self) -> None:
        if self.version is not None and self.buffer._version == self.version:
            return
        with torch.inference_mode(self.version is None), torch.no_grad():
            self.buffer.copy_(self.values)


@contextmanager
def _random_states() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def gradients(model: nn.Module) -> Iterator[None]:
    """Turns gradients on, also under the caller's `no_grad` or `inference_mode`.

    Raises:
        ModelOutputError: The model itself was made under `torch.inference_mode`.
    """
    if any(t.is_inference() for t in [*model.parameters(), *model.buffers()]):
        raise ModelOutputError(
            "the model was made under torch.inference_mode, so it has no gradients; make it, or "
            "load its weights, outside"
        )
    with torch.inference_mode(False), torch.enable_grad():
        yield


class Capture:
    """One layer's output as the start of the graph; made by `capture`.

    Attributes:
        layer: The layer's name.
        activation: The layer's output of the last forward, a leaf that requires grad.
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
            raise LayerError(
                f"layer {self.layer!r} was not called as a module during the forward pass; choose "
                "the layer around it"
            )
        if self._calls > 1:
            forward.note(
                f"layer {self.layer!r} is called {self._calls} times in a forward pass; the map is "
                "of the last call"
            )
        return output

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
            gradient = None
            if scores.requires_grad:
                (gradient,) = torch.autograd.grad(scores.sum(), self.activation, allow_unused=True)
        finally:
            self._differentiating = False
        if gradient is None:
            raise LayerError(
                f"the score has no gradient at layer {self.layer!r}: the layer does not lead "
                "to it, or the model cuts the graph after it (no_grad, detach, reentrant checkpointing)"
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
        return _replace_first(output, self._start_graph)

    def _start_graph(self, tensor: Tensor) -> Tensor:
        leaf = tensor.detach().requires_grad_(self._grad)
        if self._open:
            self._leaf, self._calls = leaf, self._calls + 1
        with torch.set_grad_enabled(self._grad):
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
        stack.enter_context(_eager())
        stack.enter_context(untouched(net))
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
        What runs the model: from (R, C, H, W) images to its output.
    """
    net = unwrap(model)
    _, module = find_module(net, layer)

    def hook(_module: nn.Module, _inputs: object, output: object) -> object:
        return _replace_first(output, change)

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_eager())
        stack.enter_context(untouched(net))
        stack.callback(module.register_forward_hook(hook).remove)
        yield lambda images: forward.call(net, images)


def _eager() -> Any:  # noqa: ANN401
    if "torch._dynamo" not in sys.modules:  # nothing can be compiled, and its import takes seconds
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


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
