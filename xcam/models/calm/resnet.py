"""torchvision's ResNets with a last feature map of 14x14 or 28x28 cells."""

from __future__ import annotations

from typing import Literal

from torch import nn

from xcam.models.calm.initialization import initialize_xavier

__all__ = ["make_resnet"]

_DEPTHS = (18, 34, 50, 101)


def make_resnet(
    num_classes: int = 1000,
    depth: Literal[18, 34, 50, 101] = 50,
    large_feature_map: bool = False,
) -> nn.Module:
    """Return a ResNet of torchvision's whose last stage keeps the size of the one before.

    Args:
        num_classes: The number of logits.
        depth: The number of layers.
        large_feature_map: Whether the stage before keeps its size, too: 28x28 cells of images of
            224 pixels instead of 14x14.

    Raises:
        ValueError: There is no ResNet of that depth.
    """
    from torchvision import models

    if depth not in _DEPTHS:
        raise ValueError(f"depth must be one of {', '.join(map(str, _DEPTHS))}, got {depth!r}")
    net: nn.Module = models.get_model(f"resnet{depth}", weights=None, num_classes=num_classes)
    initialize_xavier(net)
    _keep_size(net.get_submodule("layer4"))
    if large_feature_map:
        _keep_size(net.get_submodule("layer3"))
    return net


def _keep_size(stage: nn.Module) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
