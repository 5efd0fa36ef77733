"""ResNeXt for CIFAR (Xie et al., 2017)."""

from __future__ import annotations

from torch import nn

from xcam.models.cifar.resnet import Residual, make_bottleneck
from xcam.models.cifar.stages import StagedNet, blocks_per_stage, repeated, stem

__all__ = ["CifarResNeXt"]

_STEM = 64


class CifarResNeXt(StagedNet):
    """ResNeXt for small images: bottlenecks whose 3x3 convolution works in groups.

    Xie et al., 2017 (arXiv:1611.05431). The stages give 64 · `widen` · (1, 2, 4) channels, and
    their grouped convolutions are `cardinality` · `base_width` · (1, 2, 4) wide. The defaults are
    ResNeXt-29, 8x64d: 1024 channels at the end and 34,426,698 parameters for 10 classes. The linear
    layer is drawn from N(0, 2 / in), its bias is zero.

    Args:
        num_classes: The number of logits.
        in_channels: The number of channels of the images.
        depth: 9n + 2.
        cardinality: The number of groups.
        base_width: The number of channels of a group in the first stage.
        widen: The factor of the first stage's 64 channels.

    Raises:
        ValueError: A depth that is not 9n + 2.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        depth: int = 29,
        cardinality: int = 8,
        base_width: int = 64,
        widen: int = 4,
    ) -> None:
        first = _STEM * widen
        widths = (first, 2 * first, 4 * first)

        def make(before: int, after: int, stride: int) -> Residual:
            width = cardinality * base_width * (after // first)
            return make_bottleneck(before, width, after, stride, cardinality)

        blocks = blocks_per_stage(depth, layers=9, outside=2)
        stages = repeated(make, blocks, _STEM, widths)
        super().__init__(stem(in_channels, _STEM), stages, nn.Identity(), widths[-1], num_classes)
        nn.init.kaiming_normal_(self.fc.weight, nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)
