"""What the CIFAR nets share: a stem, three stages, a norm, pooling, one linear layer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

__all__ = ["StagedNet", "Stages", "blocks_per_stage", "conv", "repeated", "stem"]

Stages = tuple[nn.Sequential, nn.Sequential, nn.Sequential]


class StagedNet(nn.Module):
    """A net for small images: fc(pool(norm(stage3(stage2(stage1(stem(images))))))).

    Each stage after the first halves the map, so that a 32x32 image gives maps of 32, 16 and 8
    cells a side. The stages are plain children: a net that puts attention before or after the last
    stage calls them one by one. What shrinks a map inside a stage is the stride of convolutions.
    Weights are drawn from torch's global generator: convolutions from N(0, 2 / (k² · out))
    (He et al., 2015, arXiv:1502.01852, by fan out), the linear layer as torch does.

    Args:
        stem: Maps (B, in_channels, H, W) to (B, c, H, W); kept as `.stem`.
        stages: The stages of blocks; kept as `.stage1`, `.stage2` and `.stage3`.
        norm: The module after the last stage, kept as `.norm`; an identity in nets whose blocks end
            in a ReLU.
        width: The number of channels of the last stage; kept as `.fc.in_features`.
        num_classes: The number of logits.
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
        """Return logits (B, num_classes) of normalized images (B, in_channels, H, W)."""
        features = self.stage3(self.stage2(self.stage1(self.stem(images))))
        logits: Tensor = self.fc(self.pool(self.norm(features)).flatten(1))
        return logits


def conv(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution without bias, padded so that only its stride shrinks the map."""
    return nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)


def stem(in_channels: int, width: int) -> nn.Sequential:
    """Return a 3x3 convolution, batch norm and ReLU at the images' size."""
    return nn.Sequential(conv(in_channels, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def repeated(
    block: Callable[[int, int, int], nn.Module], blocks: int, before: int, widths: tuple[int, ...]
) -> Stages:
    """Return three stages of repeated blocks; the last two begin with a stride of 2.

    Args:
        block: Makes a block of (channels before, channels after, stride).
        blocks: The number of blocks in each stage.
        before: The number of channels of the stem.
        widths: The number of channels of each stage.
    """

    def stage(before: int, after: int, stride: int) -> nn.Sequential:
        rest = (block(after, after, 1) for _ in range(blocks - 1))
        return nn.Sequential(block(before, after, stride), *rest)

    first, second, third = widths
    return stage(before, first, 1), stage(first, second, 2), stage(second, third, 2)


def blocks_per_stage(depth: int, layers: int, outside: int) -> int:
    """Return the number of blocks of each stage, n > 0 with depth = layers · n + outside.

    Raises:
        ValueError: There is no such n.
    """
    blocks, rest = divmod(depth - outside, layers)
    if blocks < 1 or rest:
        near = layers * max(blocks, 1) + outside
        raise ValueError(
            f"depth must be {layers}n + {outside}, such as {near} or {near + layers}, got {depth}"
        )
    return blocks
