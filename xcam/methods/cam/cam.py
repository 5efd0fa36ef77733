"""CAM, the original class activation map."""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from xcam.core import MethodSpec, Target
from xcam.engine import Layer, Trace, capture, find_module, record_pass, unwrap
from xcam.errors import LayerError
from xcam.methods.cam.affine import average_gradients, is_affine
from xcam.methods.cam.channels import ChannelMethod
from xcam.methods.cam.features import read, require_layer, weight_channels
from xcam.methods.postprocessing import WHITE_BOX_PICTURES, Rendering, render

__all__ = ["CAM"]


@dataclass(frozen=True)
class CAM(ChannelMethod):
    """CAM: a layer's channels, weighted by the class's weights in the classifier behind pooling.

    M = Σ_k W_ck A_k for logits W mean_ij A_ij + b (Zhou et al., 2016, arXiv:1512.04150): the logits
    must be an affine function of the means of the layer's channels, which is checked on the
    numbers, so that the map's mean is the logit up to the bias. M is h·w times Grad-CAM's map.

    Where one linear layer reads the means and gives the logits, or what the model takes a softmax
    or sigmoid of, W is its weight, and no gradient is taken. Any other classifier that is affine in
    the means (several heads, LoRA, a scale or a norm behind the linear layer, a 1x1 convolution)
    takes four more passes, with a gradient. One that is not is refused. For a callable target, one
    more pass gives the weights Σ_c ∂y/∂z_c W_ck, z being what the linear layer returns.

    Attributes:
        layer: Name or module; None for the model's default layer.
        classifier: Name of the linear layer; None for the one that reads the layer's means.
        relu: Whether to cut the map at zero.
        rendering: None, or White Box's 8-bit picture at the image's size: `"gray"`, or `"jet"`, the
            colors (B, 3, H, W) by which it ranked maps of color images. Their order is not the
            map's: its maximum is dark red, and the highest red, green and blue lie below it.
        preset: `"whitebox"` sets rendering="gray", `"whitebox_jet"` rendering="jet".

    Raises:
        LayerError: The logits are not affine in the layer's means.
    """

    layer: Layer | None = None
    classifier: str | None = None
    relu: bool = False
    rendering: Rendering | None = None
    preset: InitVar[str | None] = None

    presets: ClassVar = WHITE_BOX_PICTURES
    spec: ClassVar[MethodSpec] = MethodSpec(
        name="cam",
        title="CAM",
        paper="Zhou et al., 2016, arXiv:1512.04150",
        family="cam",
        cost="1 forward",
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, h, w) at the layer's size, or rendered; see `Method.maps`."""
        maps = self.channels(model, images, target).sum(1)
        maps = maps.relu() if self.relu else maps
        if self.rendering is None:
            return maps
        return render(maps, (images.shape[2], images.shape[3]), self.rendering)

    def channels(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return the weighted channels, (B, C, h, w); see `ChannelMethod`."""
        linear = _linear_layers(unwrap(model), self.classifier)
        layer = require_layer(self.layer)
        with capture(model, layer, grad=False) as tap:
            passed = record_pass(unwrap(model), images, run=tap, modules=linear)
            target.bind(passed.output)
            activation = read(tap.activation, images, model, self.layer)
            precision = torch.finfo(tap.activation.dtype).eps
        means = activation.mean((2, 3))
        names = _find_classifiers(passed, means, target, precision, self.classifier is not None)
        if names:
            weights = _weights(model, images, target, linear, names[-1])
        else:
            if self.classifier is not None:
                raise LayerError(
                    f"classifier {self.classifier!r} does not give the logits from the means of "
                    f"layer {tap.layer!r}; leave classifier out, or use gradcam"
                )
            found = average_gradients(model, images, target, layer)
            affine = partial(is_affine, output=passed.output, call=tap.call, precision=precision)
            if found is None or not affine(model, images, layer):
                fitting = _find_pooled_layer(model, images, target, linear, precision)
                remedy = f"give layer={fitting!r}, whose means it reads, or " if fitting else ""
                raise LayerError(
                    "cam needs logits that are affine in the means of the explained layer's "
                    "channels, as of global average pooling and one linear layer, and those behind "
                    f"layer {tap.layer!r} are not; {remedy}use gradcam, which needs no such "
                    "classifier"
                )
            weights = found
        return weight_channels(activation, weights)


def _linear_layers(net: nn.Module, classifier: str | None) -> dict[str, nn.Linear]:
    if classifier is None:
        return {n: module for n, module in net.named_modules() if isinstance(module, nn.Linear)}
    name, module = find_module(net, classifier)
    if not isinstance(module, nn.Linear):
        kind = type(module).__name__
        raise LayerError(f"classifier {name!r} must be an nn.Linear, got {kind}; use gradcam")
    return {name: module}


def _find_classifiers(
    passed: Trace, means: Tensor, target: Target, precision: float, is_named: bool
) -> list[str]:
    """Name the linear layers that read the layer's means (B, C) and give the logits (B, K).

    If the model gives no logits, whose score a callable target reads, the linear layer that the
    user names is one.
    """
    names = []
    for call in passed.calls:
        pooled, scores = call.inputs[0] if call.inputs else None, call.tensor
        if not isinstance(pooled, Tensor) or scores is None:
            continue
        tolerance = max(1e-4, 8 * precision, 8 * torch.finfo(pooled.dtype).eps)
        if not _is_close(pooled, means, tolerance):
            continue
        if is_named if target.logits is None else _gives(scores, target.logits, tolerance):
            names.append(call.name)
    return names


@torch.no_grad()
def _find_pooled_layer(
    model: nn.Module,
    images: Tensor,
    target: Target,
    linear: dict[str, nn.Linear],
    precision: float,
) -> str | None:
    """Name the last layer whose means a linear layer reads that gives the logits."""
    passed = record_pass(unwrap(model), images)
    readers = replace(passed, calls=tuple(each for each in passed.calls if each.name in linear))
    for call in reversed(passed.calls):
        maps = call.tensor
        if maps is None or maps.ndim != 4 or maps.shape[2] * maps.shape[3] == 1:
            continue
        if _find_classifiers(readers, maps.mean((2, 3)), target, precision, is_named=False):
            return call.name
    return None


def _gives(scores: Tensor, logits: Tensor, tolerance: float) -> bool:
    """Return whether the logits are these scores (B, K), or the softmax or sigmoid of them.

    Probabilities are compared by their logarithms: those of saturated scores are equal otherwise.
    """
    scores = scores.to(logits.dtype)
    normalized = scores.log_softmax(1) if scores.ndim == 2 else scores
    if _is_close(scores, logits, 1e-5) or _is_close(normalized, logits, tolerance):
        return True
    least = torch.finfo(logits.dtype).tiny
    logs = logits.clamp_min(least).log()
    return bool((logits >= 0).all()) and any(
        _is_close(reading.clamp_min(math.log(least)), logs, tolerance)
        for reading in (normalized, logsigmoid(scores))
    )


def _is_close(found: Tensor, wanted: Tensor, tolerance: float) -> bool:
    """Return whether rows are equal up to a part of the largest value of each."""
    if found.shape != wanted.shape:
        return False
    scale = wanted.abs().amax(1, keepdim=True)
    return bool(((found - wanted).abs() <= tolerance * scale).all())


def _weights(
    model: nn.Module, images: Tensor, target: Target, linear: dict[str, nn.Linear], name: str
) -> Tensor:
    """Return the weights (B, C) of each image's class; of a callable, weighted by its gradient."""
    weight = linear[name].weight.detach()
    if target.classes is not None:
        return weight[target.classes]
    with capture(model, name) as tap:
        slope = tap.gradient(target.scores(tap(images)))
    return slope.to(weight.dtype) @ weight
