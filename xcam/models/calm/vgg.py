"""VGG-16 with fewer poolings and one more convolution."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from xcam.models.calm.initialization import copy_weights, initialize_kaiming

__all__ = ["CalmVGG", "copy_vgg_weights"]

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class CalmVGG(nn.Module):
    """torchvision's VGG-16 up to its last ReLU, then a 3x3 convolution to 1024 channels, and ReLU.

    The last feature map has 14x14 cells of images of 224 pixels. Its mean goes into one linear
    layer, `fc`.

    Args:
        num_classes: The number of logits.
        large_feature_map: Whether the fourth pooling is left out, as well as the fifth: 28x28
            cells.
        use_bn: Whether batch norm follows each convolution.
        released: Whether pretrained weights are taken as in the published code, which, with
            `use_bn` and `large_feature_map`, leaves out the running statistics of the batch norms
            behind the fourth pooling.

    Attributes:
        numbers: Of each module of `features` in torchvision's net.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        large_feature_map: bool = False,
        use_bn: bool = False,
        released: bool = False,
    ) -> None:
        super().__init__()
        from torchvision import models

        name = "vgg16_bn" if use_bn else "vgg16"
        trunk = cast(nn.Sequential, models.get_model(name, init_weights=False).features)
        pools = [i for i, module in enumerate(trunk) if isinstance(module, nn.MaxPool2d)]
        left_out = pools[3:] if large_feature_map else pools[4:]
        self.released = released
        self.numbers = tuple(i for i in range(len(trunk)) if i not in left_out)
        self.features = nn.Sequential(*(trunk[i] for i in self.numbers))
        self.conv6 = nn.Conv2d(512, 1024, 3, padding=1)
        self.bn6 = nn.BatchNorm2d(1024) if use_bn else nn.Identity()
        self.relu6 = nn.ReLU()
        initialize_kaiming(self)
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, 3, H, W)."""
        last = self.relu6(self.bn6(self.conv6(self.features(images))))
        logits: Tensor = self.fc(last.mean((2, 3)))
        return logits


def copy_vgg_weights(net: CalmVGG, state: Mapping[str, Tensor]) -> None:
    """Copy the weights of torchvision's VGG-16, whose modules have other numbers."""
    own = {f"features.{given}.": f"features.{i}." for i, given in enumerate(net.numbers)}
    renamed = {}
    for name, tensor in state.items():
        module = re.match(r"features\.\d+\.", name)
        skipped = net.released and name.endswith(_STATISTICS)
        if module and module[0] in own and not (skipped and own[module[0]] != module[0]):
            renamed[own[module[0]] + name[module.end() :]] = tensor
    copy_weights(net, renamed)
