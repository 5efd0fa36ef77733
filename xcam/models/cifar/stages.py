"""The frame of the CIFAR nets: a stem, three stages, a norm, pooling, one linear layer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

__all__ = ["StagedNet", "Stages", "blocks_per_stage", "conv", "repeated", "stem"]

Stages = tuple[nn.Sequential, nn.Sequential, nn.Sequential]


class StagedNet(nn.Module):
    """fc(pool(norm(stage3(stage2(stage1(stem(images))))))), what all nets for small images share.

    Each stage after the first halves the map, so that a 32x32 image gives maps of 32, 16 and 8
    cells a side. The stages are plain children: a net that puts attention before or after the last
    stage calls them one by one. What shrinks a map inside a stage is the stride of convolutions.
    Weights are drawn from torch's global generator: convolutions from N(0, 2 / (k² · out))
    (He et al., 2015, arXiv:1502.01852, by fan out), the linear layer as torch does.

    Args:
        stem: (B, in_channels, H, W) to (B, c, H, W); kept as `.stem`, as the others are.
        stages: Of blocks; kept as `.stage1`, `.stage2` and `.stage3`.
        norm: What follows the last stage; an identity in nets that rectify at the end of a block.
        width: Channels of the last stage; kept as `.fc.in_features`.
        num_classes: Number of logits.
    """

    def __init__(
        self, stem: nn.Module, stages: Stages, norm: nn.Module, width: int, num_classes: int
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stage1, self.stage2, self.stage3 = stages
        self.norm = norm
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalised images (B, in_channels, H, W)."""
        features = self.stage3(self.stage2(self.stage1(self.stem(images))))
        logits: Tensor = self.fc(self.pool(self.norm(features)).flatten(1))
        return logits


def conv(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded so that only the stride shrinks the map."""
    return nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)


def stem(in_channels: int, width: int) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU, at the images' size."""
    return nn.Sequential(conv(in_channels, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def repeated(
    block: Callable[[int, int, int], nn.Module], blocks: int, before: int, widths: tuple[int, ...]
) -> Stages:
    """Three stages of as many blocks, of which the first of the last two has stride 2.

    Args:
        block: From (channels before, channels after, stride).
        blocks: In each stage.
        before: Channels that the stem gives.
        widths: Channels that each stage gives.
    """

    def stage(before: int, after: int, stride: int) -> nn.Sequential:
        rest = (block(after, after, 1) for _ in range(blocks - 1))
        return nn.Sequential(block(before, after, stride), *rest)

    first, second, third = widths
    return stage(before, first, 1), stage(first, second, 2), stage(second, third, 2)


def blocks_per_stage(depth: int, layers: int, outside: int) -> int:
    """The n > 0 of depth = layers · n + outside: how many blocks each stage has.

    Raises:
        ValueError: There is none.
    """
    blocks, rest = divmod(depth - outside, layers)
    if blocks < 1 or rest:
        near = layers * max(blocks, 1) + outside
        raise ValueError(
            f"depth must be {layers}n + {outside}, such as {near} or {near + layers}, got {depth}"
        )
    return blocks
