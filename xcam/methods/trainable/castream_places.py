"""Where the stream of CA-Stream reads a classifier, and where it enters it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import nn

from xcam.engine import eager, untouched
from xcam.engine.paths import reach
from xcam.engine.restore import gradients
from xcam.engine.stages import list_stages
from xcam.engine.trace import Call, get_edge, hooks
from xcam.errors import LayerError
from xcam.methods.trainable.backbone import Backbone
from xcam.methods.trainable.castream_head import Family, Variant
from xcam.methods.trainable.logits import require_logits
from xcam.methods.trainable.taps import Place

__all__ = ["choose_layers", "find_convolutions", "find_pooled", "read_family"]


def read_family(net: nn.Module) -> Family | None:
    """Return whose constructor of the published code a net is like, if not that of ResNets."""
    from torchvision.models import ConvNeXt, EfficientNet

    if isinstance(net, ConvNeXt):
        return "ConvNeXt"
    return "EfficientNet" if isinstance(net, EfficientNet) else None


def choose_layers(backbone: Backbone, is_released: bool, variant: Variant | None) -> list[str]:
    """Return the layers that a stream attends to where none are named.

    Raises:
        LayerError: No layer gives a map, channels first, of more than one cell; or the net is a
            ConvNeXt that the published code does not have.
    """
    stages, between = list_stages(backbone.net, backbone.trace)
    if not stages:
        raise LayerError(
            f"no layer of {type(backbone.net).__name__} gives a feature map (B, C, h, w) of more "
            f"than one cell for an image of shape {tuple(backbone.blank.shape)}; give a "
            "convolutional net, or name the layers to attend to: layers=…"
        )
    if is_released and read_family(backbone.net) == "ConvNeXt":
        stages = [stages[0], *between[:-1], stages[-1]]
    elif is_released and "convnext" in type(backbone.net).__name__.lower():
        raise LayerError(
            "placement='released' is known of torchvision's ConvNeXts alone, got a "
            f"{type(backbone.net).__name__} of {type(backbone.net).__module__}; give "
            "placement='stages'"
        )
    return stages[{"final": -1, "v2": -2}.get(variant or "", 0) :]


def find_pooled(backbone: Backbone, layer: str) -> tuple[Place, int]:
    """Return where the pooled features of a net are, and how many.

    They are the first tensor (1, C) or (1, C, 1, 1) behind the last convolution and the layer whose
    C is that of the last map, that everything passes, and behind which there are weights.

    Args:
        backbone: The net.
        layer: The last one that is attended to.

    Raises:
        LayerError: There are none.
    """
    calls, net = backbone.trace.calls, backbone.net
    module = net.get_submodule(layer)
    start = max(i for i, call in enumerate(calls) if call.module is module or _reads_map(call))
    for place, width in [] if _weighs_positions(calls[start]) else _list_vectors(calls, start):
        if _passes_everything(backbone, place):
            return place, width
    raise LayerError(
        f"{type(net).__name__} has no pooled features that a stream could stand for: behind layer "
        f"{layer!r} its classifier must read nothing but one value a channel, as behind global "
        "average pooling; give a net that pools so, such as a ResNet"
    )


def find_convolutions(backbone: Backbone, layers: Sequence[str]) -> list[list[str]]:
    """Return the names of the convolutions that run between each layer and the next.

    Raises:
        LayerError: Something else with weights runs there too, or convolutions of pooled features.
    """
    net, calls = backbone.net, backbone.trace.calls
    modules = [net.get_submodule(layer) for layer in layers]
    ends = [i for module in modules for i, call in enumerate(calls) if call.module is module]
    spans = zip(ends, [*ends[1:], ends[-1]], strict=True)
    between = [calls[start + 1 : end + 1] for start, end in spans]
    for call in itertools.chain.from_iterable(between):
        if isinstance(call.module, nn.Linear) or _reads_vector(call):
            raise LayerError(
                "variant='shared' projects by the convolutions between two maps, one after "
                f"another, and in {type(net).__name__} that would not be what leads from one to "
                f"the next: layer {call.name!r} is linear, or reads pooled features; leave the "
                "variant out"
            )
    return [
        [call.name for call in calls if isinstance(call.module, nn.Conv2d)] for calls in between
    ]


def _reads_map(call: Call) -> bool:
    """Return whether a call is a convolution that may see more than one cell."""
    convolution, shape = call.module, call.input_shape
    if not isinstance(convolution, nn.Conv2d):
        return False
    return math.prod(convolution.kernel_size) > 1 or shape is None or math.prod(shape[2:]) > 1


def _reads_vector(call: Call) -> bool:
    """Return whether a call is a convolution of one cell, as in squeeze-and-excitation."""
    shape = call.input_shape
    return isinstance(call.module, nn.Conv2d) and shape is not None and math.prod(shape[2:]) == 1


def _weighs_positions(call: Call) -> bool:
    """Return whether a call is a convolution that covers the map, as a linear layer does."""
    convolution, before, after = call.module, call.input_shape, call.output_shape
    if not isinstance(convolution, nn.Conv2d) or before is None or after is None:
        return False
    shrinks = math.prod(before[2:]) > 1 and math.prod(after[2:]) == 1
    return shrinks and not any(convolution._reversed_padding_repeated_twice)


def _list_vectors(calls: Sequence[Call], start: int) -> Iterator[tuple[Place, int]]:
    """Yield the places of vectors as wide as the last map, behind a call, in their order."""
    width, inner = 0, calls[start].module
    for index, call in enumerate(calls):
        shape = call.output_shape
        if index > start and shape is not None and len(shape) == 3:  # tokens, of a transformer
            return
        for side, shape in (("input", call.input_shape), ("output", call.output_shape)):
            if shape is None or len(shape) not in (2, 4):
                continue
            # A module around the start has its input from before.
            behind = index > start and (side == "output" or inner not in call.module.modules())
            if behind and call.times == 1 and shape in ((1, width), (1, width, 1, 1)):
                yield Place(call.name, "input" if side == "input" else "output"), width
            if side == "output" and len(shape) == 4:
                width = shape[1]


def _passes_everything(backbone: Backbone, place: Place) -> bool:
    """Return whether the logits depend on the image through a place alone, and on weights then."""
    net, module = backbone.net, backbone.net.get_submodule(place.layer)
    call = next(call for call in backbone.trace.calls if call.module is module)
    shape = call.input_shape if place.side == "input" else call.output_shape
    constant = backbone.blank.new_zeros(cast(torch.Size, shape))
    with untouched(net), gradients(net), eager():
        for parameter in net.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        image = backbone.blank.clone().requires_grad_()
        # A constant in its place cuts the graph there.
        if place.side == "output":
            with hooks(module, after=lambda _inputs, _output: constant.clone()):
                output = net(image.clone())
        else:
            with hooks(module, before=lambda inputs: (constant.clone(), *inputs[1:])):
                output = net(image.clone())
        reached = reach([require_logits(net, output, 1)])
        behind = any(get_edge(p) in reached for p in net.parameters() if p.requires_grad)
        return behind and get_edge(image) not in reached
