"""The mean of a CAM's maps of several layers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Target
from xcam.engine import Layer
from xcam.methods.wrapping import (
    Base,
    check_base,
    describe_wrapper,
    normalize_maps,
    require_base,
)

__all__ = ["LayerFusion"]


@dataclass(frozen=True)
class LayerFusion(Method):
    """Layer fusion: the mean of a method's maps of several layers, each normalized.

    M = 1/L Σ_l up(N(max(M_l, 0))), N being the min-max scaling into [0, 1], as grad-cam does for
    several target layers (Gildenblat et al., 2021, the library grad-cam, which scales the mean once
    more). What is negative is lost. `xcam.explain(model, images, method="gradcam",
    layer=["layer3", "layer4"])` asks for it.

    Attributes:
        layers: Names or modules; none for the model's default layer alone.
        base: A method that reads a layer: an object, its name, or name and settings, as in
            `("gradcam", {"output": "prob"})`.
    """

    layers: tuple[Layer, ...] = ()
    base: Base = "gradcam"

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="layer_fusion",
        title="Layer fusion",
        paper="Gildenblat et al., 2021, grad-cam",
        family="cam",
        cost="len(layers) × (1 forward + tail backward)",
        signed=False,
    )

    def __post_init__(self) -> None:
        """Refuse a base that reads no layer; let the spec tell what the base's tells."""
        super().__post_init__()
        check_base(self.spec.name, self.base)
        if isinstance(self.base, Method):
            if "layer" not in self.base.parameters():
                raise ValueError(
                    f"{self.spec.name}: the base {self.base.spec.name} reads no layer; give one "
                    "that does, such as 'gradcam'"
                )
            cost = f"len(layers) × ({self.base.spec.cost})"
            spec = describe_wrapper(type(self).spec, self.base.spec, cost)
            object.__setattr__(self, "spec", spec)

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, H, W) at the images' size, in [0, 1]; see `Method.maps`."""
        base, size = require_base(self.base), (images.shape[2], images.shape[3])
        readers = [
            dataclasses.replace(base, layer=layer)  # type: ignore[type-var]  # as it has one
            for layer in self.layers
        ]
        maps = [
            normalize_maps(reader.maps(model, images, target), reader, size)
            for reader in readers or [base]
        ]
        return torch.stack(maps).mean(0)
