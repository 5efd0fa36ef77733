"""Residual nets for CIFAR (He et al., 2016), as LFI-CAM and ABN use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from xcam.models.cifar.stages import StagedNet, blocks_per_stage, conv, repeated, stem

__all__ = ["CifarResNet", "Residual", "make_bottleneck"]

_WIDTHS = (16, 32, 64)
_FIRST_OF_BOTTLENECKS = 44


class CifarResNet(StagedNet):
    """ResNet for small images: 3x3 stem, three stages 16, 32 and 64 wide, no max-pooling.

    He et al., 2016 (arXiv:1512.03385), with projections where the shape changes. Each stage has
    n = (depth − 2) / 6 blocks. **What the depth means follows the published code of LFI-CAM and
    ABN**: from 44 on its blocks are bottlenecks, of three layers, while n stays that of blocks of
    two. So its "ResNet-110" has 3 · 18 bottlenecks, 164 layers with weights (a ResNet-164 by He et
    al.'s count), 256 channels at the end and 1,704,154 parameters for 10 classes. He et al.'s own
    ResNet-110 is `block="basic"`: 64 channels and 1,730,714 parameters.

    Args:
        num_classes: The number of logits.
        in_channels: The number of channels of the images.
        depth: 6n + 2: 20, 32, 44, 56, 110 ….
        block: The kind of block; None for that code's choice: "basic" for depths below 44,
            "bottleneck" from there on.

    Raises:
        ValueError: A depth that is not 6n + 2, or an unknown block.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        depth: int = 110,
        block: Literal["basic", "bottleneck"] | None = None,
    ) -> None:
        block = block or ("basic" if depth < _FIRST_OF_BOTTLENECKS else "bottleneck")
        if block not in _BLOCKS:
            raise ValueError(f"block must be 'basic', 'bottleneck' or None, got {block!r}")
        make, expansion = _BLOCKS[block]
        widths = tuple(expansion * width for width in _WIDTHS)
        blocks = blocks_per_stage(depth, layers=6, outside=2)
        stages = repeated(make, blocks, _WIDTHS[0], widths)
        super().__init__(
            stem(in_channels, _WIDTHS[0]), stages, nn.Identity(), widths[-1], num_classes
        )


class Residual(nn.Module):
    """A residual block, ReLU(branch(x) + shortcut(x)), with a projection where the shapes differ.

    Args:
        branch: Maps `before` to `after` channels and shrinks the map by `stride`.
        before: The number of channels of x.
        after: The number of channels of the output.
        stride: The stride of the projection.
    """

    def __init__(self, branch: nn.Module, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(conv(before, after, 1, stride), nn.BatchNorm2d(after))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Return features (B, after, h / stride, w / stride) of features (B, before, h, w)."""
        activated: Tensor = self.relu(self.branch(features) + self.shortcut(features))
        return activated


def make_bottleneck(before: int, width: int, after: int, stride: int, groups: int = 1) -> Residual:
    """Return a block of 1x1 to `width` channels, 3x3 with stride and groups, 1x1 to `after`."""
    branch = nn.Sequential(
        conv(before, width, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        conv(width, width, 3, stride, groups),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        conv(width, after, 1),
        nn.BatchNorm2d(after),
    )
    return Residual(branch, before, after, stride)


def _make_basic(before: int, after: int, stride: int) -> Residual:
    """Return a block of two 3x3 convolutions, the first with the stride."""
    branch = nn.Sequential(
        conv(before, after, 3, stride),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        conv(after, after, 3),
        nn.BatchNorm2d(after),
    )
    return Residual(branch, before, after, stride)


def _make_bottleneck(before: int, after: int, stride: int) -> Residual:
    """Return a bottleneck whose output is four times as wide as its 3x3 convolution."""
    return make_bottleneck(before, after // 4, after, stride)


_Block = Callable[[int, int, int], Residual]
_BLOCKS: dict[str, tuple[_Block, int]] = {  # and the factor of its output's width
    "basic": (_make_basic, 1),
    "bottleneck": (_make_bottleneck, 4),
}
