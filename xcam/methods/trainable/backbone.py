"""`Backbone`: a copy of a classifier to build a head around, and where in it a head belongs."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from xcam._explain.run import check_headless
from xcam.core import TrainableMethod
from xcam.engine import Layer, find_module, untouched, unwrap
from xcam.engine.layout import Layout, norm_widths
from xcam.errors import LayerError, UnknownNameError
from xcam.methods.trainable.logits import logits_of
from xcam.models import Normalized, default_layer

__all__ = ["Backbone", "Call", "Place", "images_of"]

Place: TypeAlias = Literal["input", "output"]
M = TypeVar("M", bound=nn.Module)
Size: TypeAlias = tuple[int, int]

_SIDE = 224  # of the blank image for a net that does not say what it was made for
# How a net fails on images of a size that it does not take: torchvision's transformers assert it.
_FAILURES = (AssertionError, IndexError, RuntimeError, ValueError)

_size: ContextVar[Size | None] = ContextVar("xcam_images_of", default=None)


@contextmanager
def images_of(size: Size | None) -> Iterator[None]:
    """Within it heads are attached for images (H, W), whatever the nets say; None: as they say."""
    token = _size.set(size)
    try:
        yield
    finally:
        _size.reset(token)


@dataclass(frozen=True)
class Call:
    """A module's last call in a pass of the blank image.

    Attributes:
        name: Of the module.
        inputs: The shape of its first argument; None if that is no tensor.
        outputs: The shape of what it returned; None if that is no tensor.
        first: Whether its argument is the image itself.
        convolves: Whether it is, or holds, a convolution.
        times: How often it was called.
    """

    name: str
    inputs: torch.Size | None
    outputs: torch.Size | None
    first: bool
    convolves: bool
    times: int


@dataclass(frozen=True, eq=False)
class Backbone:
    """A copy of a classifier, for a head to be built around; the classifier stays as it was.

    Attributes:
        given: The classifier, without wrappers.
        root: The copy.
        net: What is inside the copy's normalisation, the copy itself if it has none: the head
            takes its place, so that it sees normalised images.
        size: (H, W) of the images that the head is for, where `images_of` says it.
    """

    given: nn.Module
    root: nn.Module
    net: nn.Module
    size: Size | None

    @classmethod
    def copied(cls, model: nn.Module) -> Backbone:
        """Of a classifier in any wrapper.

        Raises:
            ValueError: It carries a head already.
        """
        check_headless(model)
        given = unwrap(model)
        root = copy.deepcopy(given)
        return cls(given, root, _inside(root), _size.get())

    @cached_property
    def blank(self) -> Tensor:
        """One image of zeros such as `net` takes, (1, C, H, W).

        It is of the head's `size`, or else of the normalisation's `input_size`, or else of 224
        pixels a side.

        Raises:
            LayerError: The net has no convolution.
        """
        stem = next((m for m in self.net.modules() if isinstance(m, nn.Conv2d)), None)
        if stem is None:
            raise LayerError(
                f"{type(self.net).__name__} has no convolution, and so no feature map for a head "
                "to read; give a convolutional net"
            )
        made_for = self.root.input_size if isinstance(self.root, Normalized) else None
        size = self.size or made_for or (_SIDE, _SIDE)
        weight = stem.weight
        return torch.zeros(1, stem.in_channels, *size, dtype=weight.dtype, device=weight.device)

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """The modules that a pass of the blank image calls, in the order of return."""
        return self._passed[0]

    @cached_property
    def classes(self) -> int:
        """The number of logits."""
        return self._passed[1]

    @cached_property
    def _passed(self) -> tuple[tuple[Call, ...], int]:
        calls: dict[str, Call] = {}
        with ExitStack() as stack:
            stack.enter_context(untouched(self.net))
            stack.enter_context(torch.no_grad())
            for name, module in self.net.named_modules():
                if name:
                    hook = partial(_record, calls, name, self.blank)
                    stack.callback(module.register_forward_hook(hook).remove)
            try:
                output = self.net(self.blank)
            except _FAILURES as error:
                raise ValueError(
                    f"{type(self.net).__name__} does not run on a blank image of shape "
                    f"{tuple(self.blank.shape)} ({error}); say what images it takes: "
                    "xcam.models.Normalized(model, mean, std, input_size=(H, W))"
                ) from error
        return tuple(calls.values()), logits_of(self.net, output, 1).shape[1]

    def layer(self, given: Layer) -> str:
        """The name in `net` of a layer of the classifier; names that start outside of it will do.

        Raises:
            UnknownNameError: There is no such layer; the nearest names are listed.
            LayerError: A module that is not part of the model, or more than one.
        """
        net = _inside(self.given)
        try:
            return find_module(net, given)[0]
        except UnknownNameError:
            if net is self.given or not isinstance(given, str):
                raise
            return find_module(net, given.removeprefix("model."))[0]

    def shape(self, layer: str, place: Place = "output") -> torch.Size:
        """(1, C, h, w): what a layer gives, or takes, for the blank image.

        Raises:
            LayerError: That is no map, channels first, of more than one cell, or one of several; or
                it is the image that the layer takes.
        """
        module = self.net.get_submodule(layer)  # it may have several names, and a call has one
        named = (call for call in self.calls if self.net.get_submodule(call.name) is module)
        call = next(named, None)
        if call is not None and call.times > 1:
            other = self.default_layer() if place == "output" else self.last_stage()
            raise LayerError(
                f"layer {layer!r} is called {call.times} times in a forward pass, and a head needs "
                f"one that is called once{f', such as {other!r}' if other else ''}"
            )
        shape = None if call is None else call.outputs if place == "output" else call.inputs
        if call is None or shape is None or self._order(shape) != "NCHW":
            kind = "of no tensor" if shape is None else f"of shape {tuple(shape)}"
            got = "is not called" if call is None else f"has an {place} {kind}"
            remedy = "choose another layer, before pooling and flattening"
            if shape is not None and self._order(shape) is not None:  # tokens, or channels last
                remedy = "choose a convolutional net, or a layer that gives such a map"
            raise LayerError(
                "a head needs a feature map (B, C, h, w) of more than one cell, and layer "
                f"{layer!r} {got} for an image of shape {tuple(self.blank.shape)}; {remedy}"
            )
        if place == "input" and self._reads_image(call):
            other = self.last_stage()
            raise LayerError(
                f"layer {layer!r} reads the image, and a head needs features that a convolution "
                f"has made of it; choose a later one{f', such as {other!r}' if other else ''}"
            )
        return shape

    def default_layer(self) -> str:
        """The features that the classifier reads, see `xcam.models.default_layer`.

        Modules that are called several times are left out, as if they were functions: behind a
        shared ReLU it is the layer before its last call.
        """
        repeated = [call.name for call in self.calls if call.times > 1]
        return default_layer(self.net, self.blank, without=repeated)

    def last_stage(self) -> str | None:
        """The outermost module with convolutions that ends them, working at one resolution.

        It reads a feature map, not the image, at most twice as large a side as the map it gives. So
        it is `layer4` of a ResNet, the last dense block of a DenseNet, without the norm behind it,
        `features.7` of torchvision's ConvNeXt, and the last convolution where the net has no
        stages, as VGG. None if nothing is like that.
        """
        for call in reversed(self.calls):
            before, after = call.inputs, call.outputs
            if before is None or after is None or call.times > 1 or not call.convolves:
                continue
            one_resolution = len(before) == 4 == len(after) and all(
                side <= 2 * smaller for side, smaller in zip(before[2:], after[2:], strict=True)
            )
            if not one_resolution or self._reads_image(call):
                continue
            if self._order(before) == "NCHW" == self._order(after):
                return call.name
        return None

    def _order(self, shape: torch.Size) -> str | None:
        """In which order a tensor holds a map, see `Layout`; None if it holds none."""
        layout = Layout.of(shape, self.blank.shape, norm_widths(self.net))
        return None if layout is None else layout.order

    def _reads_image(self, call: Call) -> bool:
        """Whether it reads the image: itself, or as many channels before any convolution.

        So it is also where the net normalises or resizes the image before it.
        """
        inside = {id(module) for module in self.net.get_submodule(call.name).modules()}
        earlier = itertools.takewhile(lambda other: other is not call, self.calls)
        convolved = any(
            other.convolves and id(self.net.get_submodule(other.name)) not in inside
            for other in earlier
        )
        channels = None if call.inputs is None else call.inputs[1:2]
        return call.first or (not convolved and channels == self.blank.shape[1:2])

    def fitting(self, module: M) -> M:
        """A head's part in the net's dtype and mode, on its device."""
        return module.to(self.blank.device, self.blank.dtype).train(self.net.training)

    def carrying(self, head: nn.Module, method: TrainableMethod) -> nn.Module:
        """The copy with the head in place of `net`: it carries the method, not yet fitted.

        Where nothing normalises, the head says for which images it was attached: its `input_size`.

        Args:
            head: Around `net`; from images to logits.
            method: With every field filled in.
        """
        head.training = self.net.training
        root = self.root if isinstance(self.root, Normalized) else head
        if isinstance(self.root, Normalized):
            self.root.model = head
        else:
            head.input_size = self.size  # type: ignore[assignment]
        root.method, root.fitted = method, False  # type: ignore[assignment]
        return root


def _inside(net: nn.Module) -> nn.Module:
    return net.model if isinstance(net, Normalized) else net


def _record(
    calls: dict[str, Call],
    name: str,
    image: Tensor,
    module: nn.Module,
    inputs: tuple[object, ...],
    output: object,
) -> None:
    given = inputs[0] if inputs else None
    earlier = calls.pop(name, None)
    calls[name] = Call(
        name=name,
        inputs=given.shape if isinstance(given, Tensor) else None,
        outputs=output.shape if isinstance(output, Tensor) else None,
        first=given is image,
        convolves=any(isinstance(inner, nn.Conv2d) for inner in module.modules()),
        times=1 if earlier is None else earlier.times + 1,
    )
