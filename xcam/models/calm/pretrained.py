"""CALM's nets by name, with the weights that torchvision has for their trunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from xcam.errors import unknown
from xcam.models.calm.inception import CalmInception
from xcam.models.calm.initialization import copy_weights
from xcam.models.calm.resnet import make_resnet
from xcam.models.calm.vgg import CalmVGG, copy_vgg_weights

__all__ = ["CALM_NETS", "make_pretrained"]

CALM_NETS: dict[str, Callable[..., nn.Module]] = {
    "calm_inception_v3": CalmInception,
    "calm_resnet": make_resnet,
    "calm_vgg16": CalmVGG,
}


def make_pretrained(name: str, weights: str | None, settings: Mapping[str, Any]) -> nn.Module:
    """Return a net by its name; with weights its trunk has those of torchvision's net.

    Args:
        name: Of `CALM_NETS`.
        weights: An entry of torchvision's, such as `"IMAGENET1K_V1"`; None for random weights.
        settings: Arguments of the net.

    Raises:
        UnknownNameError: There is no such entry.
        URLError: It cannot be downloaded.
    """
    net = CALM_NETS[name](**settings)
    if weights is None:
        return net
    from torchvision import models

    original = {
        "calm_inception_v3": "inception_v3",
        "calm_resnet": f"resnet{settings.get('depth', 50)}",
        "calm_vgg16": "vgg16_bn" if settings.get("use_bn") else "vgg16",
    }[name]
    entries = models.get_model_weights(original)
    if weights not in entries.__members__:
        raise unknown(f"weights of xcam:{name}", weights, [*entries.__members__])
    state = entries[weights].get_state_dict(check_hash=True)
    if isinstance(net, CalmVGG):
        copy_vgg_weights(net, state)
    else:
        copy_weights(net, state)
    return net
