"""Wide residual nets for CIFAR (Zagoruyko and Komodakis, 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from xcam.models.cifar.stages import StagedNet, blocks_per_stage, conv, repeated

__all__ = ["CifarWideResNet"]

_WIDTHS = (16, 32, 64)


class CifarWideResNet(StagedNet):
    """Wide ResNet for small images: pre-activation blocks, `widen` times as wide, with dropout.

    Zagoruyko and Komodakis, 2016 (arXiv:1605.07146). A block is BN, ReLU, 3x3, BN, ReLU, dropout,
    3x3; where the channels change, its shortcut projects the activated input. `norm` is the last BN
    and ReLU. The defaults are WRN-28-10: 640 channels at the end and 36,479,194 parameters for 10
    classes. The bias of the linear layer starts at zero.

    Args:
        num_classes: The number of logits.
        in_channels: The number of channels of the images.
        depth: 6n + 4, with n blocks a stage.
        widen: The factor of the stages' 16, 32 and 64 channels.
        dropout: The probability of dropping a value between a block's convolutions in training.

    Raises:
        ValueError: A depth that is not 6n + 4, or a dropout out of range.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        depth: int = 28,
        widen: int = 10,
        dropout: float = 0.3,
    ) -> None:
        widths = tuple(widen * width for width in _WIDTHS)

        def make(before: int, after: int, stride: int) -> _WideBlock:
            return _WideBlock(before, after, stride, dropout)

        blocks = blocks_per_stage(depth, layers=6, outside=4)
        stages = repeated(make, blocks, _WIDTHS[0], widths)
        norm = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True))
        super().__init__(conv(in_channels, _WIDTHS[0], 3), stages, norm, widths[-1], num_classes)
        nn.init.zeros_(self.fc.bias)


class _WideBlock(nn.Module):
    """A pre-activation block: branch(a) + x, or branch(a) + projection(a), with a = ReLU(BN(x))."""

    def __init__(self, before: int, after: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU(inplace=True))
        self.branch = nn.Sequential(
            conv(before, after, 3, stride),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            conv(after, after, 3),
        )
        changes = stride != 1 or before != after
        self.projection = conv(before, after, 1, stride) if changes else None

    def forward(self, features: Tensor) -> Tensor:
        """Return features (B, after, h / stride, w / stride) of features (B, before, h, w)."""
        activated = self.activation(features)
        shortcut = features if self.projection is None else self.projection(activated)
        mixed: Tensor = self.branch(activated) + shortcut
        return mixed
