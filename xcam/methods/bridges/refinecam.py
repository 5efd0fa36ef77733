"""RefineCAM's formula: the product of CAMs of several layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from xcam import imaging
from xcam.core import Method, Target
from xcam.engine import record_pass, unwrap
from xcam.engine.clean import bind_clean_pass
from xcam.engine.stages import list_stages
from xcam.engine.wrappers import check_layers

__all__ = ["explain_product", "require_base"]


def require_base(method: Any) -> Method:  # noqa: ANN401
    """Return the base of a method, or raise if it is only named."""
    base = method.base
    if not isinstance(base, Method):
        raise TypeError(
            f"base {base!r} is only named: give a method object, or call xcam.explain, which makes "
            "it"
        )
    return base


def explain_product(method: Any, model: nn.Module, images: Tensor, target: Target) -> Tensor:  # noqa: ANN401
    """Multiply the maps of the base at several layers, each cut at zero, min-maxed and enlarged."""
    base, net = require_base(method), unwrap(model)
    if "layer" not in base.parameters():
        raise TypeError(
            f"refinecam runs its base at several layers, and {base.spec.name} has none; give a "
            "CAM, such as base='gradcam_plusplus'"
        )
    if not target.bound:
        bind_clean_pass(model, images, target)
    size = (images.shape[2], images.shape[3])
    product = images.new_ones(len(images), *size, dtype=torch.float32)
    for layer in method.layers or _find_layers(net, images, base):
        placed = dataclasses.replace(base, layer=layer)  # type: ignore[type-var]
        maps = placed.maps(model, images, target.select(slice(None))).relu()
        product = product * imaging.normalize(imaging.resize(imaging.normalize(maps), size))
    return product


def _find_layers(net: nn.Module, images: Tensor, base: Method) -> list[str]:
    """Return the ends of the net's stages; the base's layer where there are none."""
    check_layers(net)
    with torch.no_grad():
        stages, _ = list_stages(net, record_pass(net, images[:1].detach()))
    layer: str = base.parameters()["layer"]
    return [*dict.fromkeys([*stages, layer])]
