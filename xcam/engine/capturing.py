"""Reading and changing the output of one layer during a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xcam.engine import forward
from xcam.engine.layers import default_layer
from xcam.engine.paths import RepeatedLayer, copy_leaf, cut_layer, find_scores
from xcam.engine.restore import gradients, untouched
from xcam.engine.threads import calls_in_threads, describe_threads
from xcam.engine.trace import hooks, replace_first
from xcam.engine.wrappers import Layer, eager, find_batch_size, find_module, unwrap
from xcam.errors import LayerError
from xcam.sentences import pluralize

__all__ = ["Capture", "capture", "replace_output"]


class Capture:
    """One layer's output as the start of the graph; made by `capture`.

    Attributes:
        layer: The layer's name.
    """

    def __init__(self, net: nn.Module, layer: str, module: nn.Module, grad: bool) -> None:
        """Keep what `capture` has found."""
        self.layer = layer
        self._net, self._module, self._grad = net, module, grad
        self._leaf: Tensor | None = None
        self._images: Tensor | None = None
        self._calls = 0
        self._call: int | None = None

    def __call__(self, images: Tensor) -> Any:  # noqa: ANN401
        """Return the model's output for (B, C, H, W) images, with the graph from the layer on.

        Raises:
            LayerError: The layer was not called, or its output holds no floating-point tensor.
        """
        repeated = forward.current_runtime().repeated_layers
        self._call = repeated[self.layer].call if self.layer in repeated else None
        self._images = images.detach()
        output = _run(self._net, self._forward, self._images)
        if self._calls > 1 and self._call is None:
            which = self._choose_call(images)
            if which != self._calls - 1:
                self._call = which
                output = _run(self._net, self._forward, self._images)
        if self._leaf is None:
            raise _make_unread_error(self._net, images, self.layer, self._calls)
        return output

    def _choose_call(self, images: Tensor) -> int:
        """Choose the call of a repeated layer that is read, and tell the user."""
        repeated = RepeatedLayer(self._calls, cut_layer(self._net, self.layer, images))
        forward.record_repeated_layer(self.layer, repeated)
        return repeated.call

    @property
    def calls(self) -> int:
        """Return how often the layer was called in the last forward."""
        return self._calls

    @property
    def call(self) -> int:
        """Return which of the calls, from 0, is read.

        It is the last one through which the score depends on the image.
        """
        return self._calls - 1 if self._call is None else self._call

    @property
    def activation(self) -> Tensor:
        """Return the layer's output in the call of the last forward that is read.

        With `grad`, it is a leaf.
        """
        if self._leaf is None:
            raise RuntimeError("no forward pass has been captured yet")
        return self._leaf

    def gradient(self, scores: Tensor, create_graph: bool = False) -> Tensor:
        """Return ∂ Σ scores / ∂ activation, of the activation's shape.

        Args:
            scores: What the output gives for each image, with its graph.
            create_graph: Whether the gradient will be differentiated itself, for methods that need
                second-order gradients: by `gradient` again, which has the same activation.

        Raises:
            LayerError: The scores do not depend on the layer through differentiable operations.
        """
        gradient = self._differentiate(scores, create_graph) if scores.requires_grad else None
        if gradient is None:
            remedy = "use a method without gradients, such as 'eigencam'"
            other = (
                None if self._images is None else _find_other(self._net, self._images, self.layer)
            )
            if other:
                remedy = f"choose another layer, such as {other!r}, or {remedy}"
            raise LayerError(
                f"the score has no gradient at layer {self.layer!r}: the layer does not lead to "
                "it, or the model cuts the graph after it (no_grad, detach, quantized layers, "
                f"reentrant checkpointing); {remedy}"
            )
        return gradient

    def _forward(self, images: Tensor) -> Any:  # noqa: ANN401
        self._leaf, self._calls = None, 0
        with hooks(self._module, after=self._on_output):
            return self._net(images)

    def _on_output(self, _inputs: object, output: object) -> object:
        self._calls += 1
        return replace_first(output, self._start_graph)

    def _start_graph(self, tensor: Tensor) -> Tensor:
        leaf, copy = copy_leaf(tensor, self._grad)
        if self._call in (None, self._calls - 1):
            self._leaf = leaf
        return copy

    def _differentiate(self, scores: Tensor, create_graph: bool) -> Tensor | None:
        """Return the gradient; None if the scores' graph does not lead to the layer.

        A checkpointed layer runs again inside the backward pass, on a GPU in a thread of autograd,
        and must build the same graph. Calls in a user's own backward passes are not meant, so the
        hook compares the number that autograd gives to each backward pass.
        """
        passes: list[int] = []
        total = scores.sum()
        total.register_hook(  # type: ignore[no-untyped-call]
            lambda _: passes.append(torch._C._current_graph_task_id())
        )
        rerun = hooks(
            self._module,
            after=lambda _, output: replace_first(output, lambda t: copy_leaf(t, True)[1]),
            acts=lambda: torch._C._current_graph_task_id() in passes,
        )
        try:
            with rerun:
                (gradient,) = torch.autograd.grad(
                    total, self.activation, create_graph=create_graph, allow_unused=True
                )
        except RuntimeError as error:
            if "use_reentrant" not in str(error):
                raise
            return None
        return gradient


@contextmanager
def capture(model: nn.Module, layer: Layer, grad: bool = True) -> Iterator[Capture]:
    """Run a model so that the graph starts at a layer's output.

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
    with gradients(net) if grad else torch.no_grad(), untouched(net), eager():
        yield Capture(net, name, module, grad)


@contextmanager
def replace_output(
    model: nn.Module, layer: Layer, change: Callable[[Tensor], Tensor]
) -> Iterator[Callable[[Tensor], Any]]:
    """Run a model with a layer's output changed, without a graph.

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

    def run(images: Tensor) -> Any:  # noqa: ANN401
        changes: list[bool] = []

        def change_output(_inputs: object, output: object) -> object:
            changed = replace_first(output, change)
            changes.append(changed is not None)
            return changed

        with hooks(module, after=change_output):
            output = _run(net, net.__call__, images)
        if not any(changes):
            raise _make_unread_error(net, images, name, len(changes))
        return output

    with torch.no_grad(), untouched(net), eager():
        yield run


def _run(net: nn.Module, run: Callable[[Tensor], Any], images: Tensor) -> Any:  # noqa: ANN401
    """Run a net whose layers are read, all images at a time.

    Raises:
        LayerError: A part of it was exported for another number of images.
    """
    try:
        return forward.call(run, images)
    except (AssertionError, RuntimeError) as error:
        size = find_batch_size(net)
        if size in (None, len(images)) or forward.out_of_memory(error):
            raise
        raise LayerError(
            f"a part of the model was exported for {pluralize(size or 1, 'image')}, and layers "
            f"beside it cannot be read in a pass of {len(images)}; explain the nn.Module that it "
            "was made from, or use a method that reads no layer, such as 'rise'"
        ) from error


def _find_other(
    net: nn.Module, images: Tensor, layer: str, needs_gradient: bool = True
) -> str | None:
    """Return the default layer if it is another one that can be read; None if it cannot."""
    try:
        name = default_layer(net, images)
        with capture(net, name, needs_gradient) as captured:
            scores = find_scores(captured(images), len(images))
    except (LayerError, RuntimeError):
        return None
    is_readable = not needs_gradient or any(score.requires_grad for score in scores)
    return name if name != layer and is_readable else None


def _make_unread_error(net: nn.Module, images: Tensor, layer: str, calls: int) -> LayerError:
    """Return the error for a layer that was not read, with a remedy that applies."""
    if calls:
        remedy = "use a method that reads no layer, such as 'rise'"
        other = _find_other(net, images, layer, needs_gradient=False)
        if other:
            remedy = f"choose another layer, such as {other!r}, or {remedy}"
        return LayerError(
            f"the output of layer {layer!r} holds no floating-point tensor in a tensor, tuple, "
            f"list or dict (it may be quantized); {remedy}"
        )
    if calls_in_threads(net, images, layer):
        return LayerError(describe_threads(f"{type(net).__name__} runs layer {layer!r}"))
    return LayerError(
        f"layer {layer!r} was not called as a module during the forward pass; choose the layer "
        "around it"
    )
