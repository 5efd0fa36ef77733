"""Inception-v3 up to its last 17x17 blocks, with two more convolutions."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.models.calm.initialization import initialize_xavier

__all__ = ["CalmInception"]

_BLOCKS = (
    "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3",
    "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e",
)  # fmt: skip


class CalmInception(nn.Module):
    """torchvision's Inception-v3 up to `Mixed_6e`, then two 3x3 convolutions to 1024 channels.

    The poolings are padded and `Mixed_6a` keeps the size, so that the last feature map has 14x14
    cells of images of 224 pixels. Its mean goes into one linear layer, `fc`.

    Args:
        num_classes: The number of logits.
        large_feature_map: Whether the pooling before `Mixed_6a` is left out: 28x28 cells.
        use_bn: Whether batch norm follows the two last convolutions.
        released: Whether to go on from `Mixed_6d`, as the published code does.
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

        trunk = models.get_model("inception_v3", init_weights=False, aux_logits=False)
        for name in _BLOCKS:
            block = getattr(trunk, name)
            self.add_module(name, SameSize(block) if name == "Mixed_6a" else block)
        cast(nn.Conv2d, self.get_submodule("Conv2d_1a_3x3.conv")).padding = (1, 1)
        self.large_feature_map, self.released = large_feature_map, released
        self.SPG_A3_1b = _make_last(768, use_bn)
        self.SPG_A3_2b = _make_last(1024, use_bn)
        initialize_xavier(self)
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, 3, H, W)."""
        found = images
        for name in _BLOCKS[:-1] if self.released else _BLOCKS:
            if name in ("Conv2d_3b_1x1", "Mixed_5b"):
                found = F.max_pool2d(found, 3, 2, padding=1, ceil_mode=True)
            elif name == "Mixed_6a" and not self.large_feature_map:
                found = F.max_pool2d(found, 3, 2, ceil_mode=True)
            found = self.get_submodule(name)(found)
        logits: Tensor = self.fc(self.SPG_A3_2b(self.SPG_A3_1b(found)).mean((2, 3)))
        return logits

    def extra_repr(self) -> str:
        """Describe what is no module."""
        return f"large_feature_map={self.large_feature_map}, released={self.released}"


class SameSize(nn.Module):
    """Inception's block that halves the size of its map, without halving it.

    Args:
        block: Such a block of torchvision's.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        for name, branch in block.named_children():
            self.add_module(name, branch)
        for name in ("branch3x3", "branch3x3dbl_3"):
            convolution = cast(nn.Conv2d, self.get_submodule(f"{name}.conv"))
            convolution.stride, convolution.padding = (1, 1), (1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return features (B, 768, h, w) of features (B, 288, h, w)."""
        double = features
        for name in ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"):
            double = self.get_submodule(name)(double)
        pooled = F.max_pool2d(features, 3, 1, padding=1)
        return torch.cat([self.get_submodule("branch3x3")(features), double, pooled], 1)


def _make_last(before: int, use_bn: bool) -> nn.Sequential:
    norm = [nn.BatchNorm2d(1024)] if use_bn else []
    return nn.Sequential(nn.Conv2d(before, 1024, 3, padding=1), *norm, nn.ReLU())
