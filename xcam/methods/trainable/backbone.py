"""`Backbone`: a copy of a classifier to attach a head to, and where in it a head belongs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import cached_property, partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from xcam.core import Headed, TrainableMethod, check_headless
from xcam.engine import Layer, eager, find_module, untouched, unwrap
from xcam.engine.hints import read_hints
from xcam.engine.layout import Layout, find_layout
from xcam.engine.stages import last_stage, reads_image
from xcam.engine.trace import Trace, hooks, record_pass
from xcam.errors import LayerError, UnknownNameError
from xcam.methods.trainable.logits import require_logits
from xcam.methods.trainable.taps import Place
from xcam.models import Normalized, default_layer

__all__ = ["Backbone"]

M = TypeVar("M", bound=nn.Module)

_SIDE = 224  # of the blank image for a net that does not say what it was made for
# How a net fails on images of a size that it does not take: torchvision's transformers assert it.
_FAILURES = (AssertionError, IndexError, RuntimeError, ValueError)


class Backbone:
    """A copy of a classifier, for a head to be attached to; the classifier stays as it was.

    Args:
        model: The classifier, in any wrapper.
        like: See `TrainableMethod.attach`.

    Attributes:
        net: The copy, without its normalization: the head sees normalized images.

    Raises:
        ValueError: The classifier carries a head already.
    """

    def __init__(self, model: nn.Module, like: Tensor | None = None) -> None:
        check_headless(model)
        self._given = unwrap(model)
        self._root = copy.deepcopy(self._given)
        self.net = _inside(self._root)
        self._like = like

    @cached_property
    def _stem(self) -> nn.Conv2d | None:
        return next((m for m in self.net.modules() if isinstance(m, nn.Conv2d)), None)

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Return (C, H, W) of the images that the head is for; None if that is not known."""
        if self._like is not None:
            channels, height, width = self._like.shape[1:]
            return channels, height, width
        size = self._root.input_size if isinstance(self._root, Normalized) else None
        return None if size is None or self._stem is None else (self._stem.in_channels, *size)

    @cached_property
    def blank(self) -> Tensor:
        """Return one image of zeros such as the net takes, (1, C, H, W), of 224 pixels by default.

        Raises:
            LayerError: The net has no convolution.
        """
        if self._stem is None:
            raise LayerError(
                f"{type(self.net).__name__} has no convolution, and so no feature map for a head "
                "to read; give a convolutional net"
            )
        weight = self._stem.weight
        shape = self.image_shape or (self._stem.in_channels, _SIDE, _SIDE)
        return torch.zeros(1, *shape, dtype=weight.dtype, device=weight.device)

    @cached_property
    def trace(self) -> Trace:
        """Return a recorded pass of the blank image, whose output is logits."""
        try:
            with untouched(self.net), torch.no_grad():
                trace = record_pass(self.net, self.blank)
        except _FAILURES as error:
            raise ValueError(
                f"{type(self.net).__name__} does not run on a blank image of shape "
                f"{tuple(self.blank.shape)} ({error}); say what images it takes: "
                "xcam.models.Normalized(model, mean, std, input_size=(H, W))"
            ) from error
        require_logits(self.net, trace.output, 1)
        return trace

    @cached_property
    def num_classes(self) -> int:
        """Return the number of logits."""
        return require_logits(self.net, self.trace.output, 1).shape[1]

    def layer(self, given: Layer) -> str:
        """Return the name in `net` of a layer of the given classifier.

        A name that starts outside of the normalization, such as `"model.layer4"`, is understood.

        Raises:
            UnknownNameError: There is no such layer; the nearest names are listed.
            LayerError: A module that is not part of the model, or more than one.
        """
        net = _inside(self._given)
        try:
            return find_module(net, given)[0]
        except UnknownNameError:
            if net is self._given or not isinstance(given, str):
                raise
            return find_module(net, given.removeprefix("model."))[0]

    def shape(self, place: Place, any_layout: bool = False) -> torch.Size:
        """Return the shape (1, C, h, w) of the feature map at a place, for the blank image.

        Args:
            place: The output of a layer, or its first input.
            any_layout: Whether tokens and maps with channels last will do.

        Raises:
            LayerError: That is no such map of more than one cell, or one of several; or it is the
                image that the layer takes.
        """
        layer, side = place
        module = self.net.get_submodule(layer)  # it may have several names, and a call has one
        call = next((call for call in self.trace.calls if call.module is module), None)
        if call is not None and call.times > 1:
            other = self.default_layer() if side == "output" else self.last_stage()
            raise LayerError(
                f"layer {layer!r} is called {call.times} times in a forward pass, and a head needs "
                f"one that is called once{f', such as {other!r}' if other else ''}"
            )
        shape = None
        if call is not None:
            shape = call.output_shape if side == "output" else call.input_shape
        layout = None if call is None or shape is None else self._find_layout(shape, module)
        if any_layout and layout is not None:
            return layout.read(torch.empty(shape or (), device="meta")).shape
        if call is None or shape is None or layout is None or layout.order != "NCHW":
            kind = "of no tensor" if shape is None else f"of shape {tuple(shape)}"
            got = "is not called" if call is None else f"has an {side} {kind}"
            remedy = "choose another layer, before pooling and flattening"
            if layout is not None:  # tokens, or channels last
                remedy = "choose a convolutional net, or a layer that gives such a map"
            raise LayerError(
                "a head needs a feature map (B, C, h, w) of more than one cell, and layer "
                f"{layer!r} {got} for an image of shape {tuple(self.blank.shape)}; {remedy}"
            )
        if side == "input" and reads_image(self.trace, call):
            other = self.last_stage()
            raise LayerError(
                f"layer {layer!r} reads the image, and a head needs features that a convolution "
                f"has made of it; choose a later one{f', such as {other!r}' if other else ''}"
            )
        return shape

    def default_layer(self) -> str:
        """Return the layer that gives the last features, see `xcam.models.default_layer`.

        Modules that are called several times are left out, as if they were functions: behind a
        shared ReLU it is the layer before its last call.
        """
        repeated = [call.name for call in self.trace.calls if call.times > 1]
        return default_layer(self.net, self.blank, without=repeated)

    def last_stage(self) -> str | None:
        """Return the last stage of convolutions, see `xcam.engine.stages.last_stage`."""
        return last_stage(self.net, self.trace)

    def drop_tail(self, layer: str) -> None:
        """Replace what only runs behind a layer by Identity, for a head that goes on instead.

        Where the net reads a setting or a weight of it before, it is kept, and frozen.
        """
        before = self._run_to(layer)
        behind = {call.module for call in self.trace.calls} - before
        replaced = [
            (parent, name, child)
            for parent in self.net.modules()
            for name, child in parent._modules.items()
            if parent not in behind and child in behind
        ]
        for parent, name, _ in replaced:
            setattr(parent, name, nn.Identity())
        try:
            self._run_to(layer)
        except Exception:  # whatever a net may do with a module that it does not call
            for parent, name, child in replaced:
                setattr(parent, name, child.requires_grad_(False))

    def _run_to(self, layer: str) -> set[nn.Module]:
        """Run the blank image up to a layer's output, and return the modules that were entered."""
        entered: set[nn.Module] = set()

        def stop(_inputs: object, _output: object) -> None:
            raise _Reached

        with ExitStack() as stack, suppress(_Reached):
            for context in (untouched(self.net), torch.no_grad(), eager()):
                stack.enter_context(context)
            for module in self.net.modules():
                if not isinstance(module, torch.jit.ScriptModule):  # which takes no hooks
                    note = partial(_note_module, entered, module)
                    stack.enter_context(hooks(module, before=note))
            stack.enter_context(hooks(self.net.get_submodule(layer), after=stop))
            self.net(self.blank)
        return entered

    def _find_layout(self, shape: torch.Size, module: nn.Module) -> Layout | None:
        hints = read_hints(self.net, self.blank.shape[1])
        return find_layout(shape, self.blank.shape, hints, module)

    def with_head(
        self, head: nn.Module, method: TrainableMethod, frozen: Sequence[str] = ()
    ) -> nn.Module:
        """Return the copy with a head attached, which is not yet fitted.

        The head takes the dtype, the device and the mode of the net.

        Args:
            head: What the method adds.
            method: With every field filled in that shapes the head.
            frozen: Names of parts that never learn, see `Headed`.
        """
        headed = Headed(self.net, self.adapt(head), method, self.image_shape, frozen)
        if not isinstance(self._root, Normalized):
            return headed
        self._root.model = headed
        self._root.input_size = self._root.input_size or headed.input_size
        return self._root

    def adapt(self, module: M) -> M:
        """Move a part of the head to the net's dtype, device and mode."""
        like = next((p for p in self.net.parameters() if p.is_floating_point()), None)
        if like is not None:
            module = module.to(like.device, like.dtype)
        return module.train(self.net.training)


class _Reached(BaseException):
    """The end of a pass at a layer; a model's own error handlers do not catch it."""


def _note_module(entered: set[nn.Module], module: nn.Module, _inputs: object) -> None:
    entered.add(module)


def _inside(net: nn.Module) -> nn.Module:
    return net.model if isinstance(net, Normalized) else net
