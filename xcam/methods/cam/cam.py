"""CAM, the original class activation map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Target
from xcam.engine import Layer, Trace, capture, find_module, record_pass, unwrap
from xcam.errors import LayerError
from xcam.methods.cam.features import read, require_layer, weight_channels

__all__ = ["CAM"]


@dataclass(frozen=True)
class CAM(Method):
    """CAM: a layer's channels, weighted by the class's weights in the linear layer behind pooling.

    M = Σ_k W_ck A_k for logits W mean_ij A_ij + b (Zhou et al., 2016, arXiv:1512.04150): the net
    must be global average pooling and one linear layer behind the layer, which is checked on the
    numbers. No gradient is taken: M is h·w times Grad-CAM's map. For a callable target, one more
    pass gives the weights Σ_c ∂y/∂z_c W_ck, z being what the linear layer returns.

    Attributes:
        layer: Name or module; None for the model's default layer.
        classifier: Name of the linear layer; None for the one that reads the layer's means.
        relu: Whether to cut the map at zero.

    Raises:
        LayerError: No linear layer with an output a class reads the layer's means.
    """

    layer: Layer | None = None
    classifier: str | None = None
    relu: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="cam",
        title="CAM",
        paper="Zhou et al., 2016, arXiv:1512.04150",
        family="cam",
        cost="1 forward",
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, h, w) at the layer's size; see `Method.maps`."""
        linear = _linear_layers(unwrap(model), self.classifier)
        with capture(model, require_layer(self.layer), grad=False) as tap:
            passed = record_pass(unwrap(model), images, run=tap, modules=linear)
            target.bind(passed.output)
            activation = read(tap.activation, images, model)
            precision = torch.finfo(tap.activation.dtype).eps
        candidates = _readers(passed, activation.mean((2, 3)), precision)
        classes = None if target.logits is None else target.logits.shape[1]
        fitting = [name for name in candidates if classes in (None, len(linear[name].weight))]
        if not fitting:
            outputs = "" if classes is None else f" with {classes} outputs"
            raise LayerError(
                "cam needs global average pooling and one linear layer behind the explained layer, "
                f"and no linear layer{outputs} reads its {activation.shape[1]} "
                "channels' means; use gradcam, which needs none, or name the layer before pooling"
            )
        maps = weight_channels(activation, _weights(model, images, target, linear, fitting[-1]))
        return maps.relu() if self.relu else maps


def _linear_layers(net: nn.Module, classifier: str | None) -> dict[str, nn.Linear]:
    if classifier is None:
        return {n: module for n, module in net.named_modules() if isinstance(module, nn.Linear)}
    name, module = find_module(net, classifier)
    if not isinstance(module, nn.Linear):
        kind = type(module).__name__
        raise LayerError(f"classifier {name!r} must be an nn.Linear, got {kind}; use gradcam")
    return {name: module}


def _readers(passed: Trace, means: Tensor, precision: float) -> list[str]:
    """Name the linear layers whose input is the layer's means (B, C), up to the precision."""
    scale = means.abs().amax(1, keepdim=True)
    names = []
    for call in passed.calls:
        pooled = call.inputs[0] if call.inputs else None
        if isinstance(pooled, Tensor) and pooled.shape == means.shape:
            tolerance = max(1e-4, 8 * precision, 8 * torch.finfo(pooled.dtype).eps)
            if bool(((pooled - means).abs() <= tolerance * scale).all()):
                names.append(call.name)
    return names


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
