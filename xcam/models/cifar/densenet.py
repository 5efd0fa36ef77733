"""DenseNet-BC for CIFAR (Huang et al., 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xcam.models.cifar.stages import StagedNet, blocks_per_stage, conv

__all__ = ["CifarDenseNet"]


class CifarDenseNet(StagedNet):
    """DenseNet-BC for small images: each layer reads the outputs of all layers before it.

    Huang et al., 2017 (arXiv:1608.06993). A layer is BN, ReLU, 1x1 to 4 · `growth` channels, BN,
    ReLU, 3x3 to `growth` channels, which are joined to its input. The first two stages end with
    their transition (BN, ReLU, 1x1, 2x2 mean pooling), so that the third is the dense block alone,
    its features signed; `norm` is the last BN and ReLU. The defaults are DenseNet-BC (L=100, k=12):
    342 channels at the end and 769,162 parameters for 10 classes, 800,032 for 100.

    Args:
        num_classes: The number of logits.
        in_channels: The number of channels of the images.
        depth: 6n + 4, with n layers a stage.
        growth: The number of channels that a layer adds.
        compression: The share of the channels that a transition keeps, rounded down.
        dropout: The probability of dropping a value that a layer adds in training.

    Raises:
        ValueError: A depth that is not 6n + 4, or a compression or dropout out of range.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        depth: int = 100,
        growth: int = 12,
        compression: float = 0.5,
        dropout: float = 0.0,
    ) -> None:
        if not 0 < compression <= 1:
            raise ValueError(f"compression must be above 0 and at most 1, got {compression}")
        layers = blocks_per_stage(depth, layers=6, outside=4)
        added = layers * growth
        first = 2 * growth
        second = int(compression * (first + added))
        third = int(compression * (second + added))

        def make_layers(before: int) -> list[nn.Module]:
            widths = range(before, before + added, growth)
            return [_DenseLayer(width, growth, dropout) for width in widths]

        stages = (
            nn.Sequential(*make_layers(first), *_make_transition(first + added, second)),
            nn.Sequential(*make_layers(second), *_make_transition(second + added, third)),
            nn.Sequential(*make_layers(third)),
        )
        norm = nn.Sequential(nn.BatchNorm2d(third + added), nn.ReLU(inplace=True))
        super().__init__(conv(in_channels, first, 3), stages, norm, third + added, num_classes)


class _DenseLayer(nn.Module):
    """A dense layer: its input joined with `growth` channels that are computed from it."""

    def __init__(self, before: int, growth: int, dropout: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.ReLU(inplace=True),
            conv(before, 4 * growth, 1),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(inplace=True),
            conv(4 * growth, growth, 3),
            nn.Dropout(dropout),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return features (B, before + growth, h, w) of features (B, before, h, w)."""
        return torch.cat([features, self.branch(features)], dim=1)


def _make_transition(before: int, after: int) -> list[nn.Module]:
    """Return modules that reduce the channels to `after` and halve the size."""
    return [
        nn.BatchNorm2d(before),
        nn.ReLU(inplace=True),
        conv(before, after, 1),
        nn.AvgPool2d(2),
    ]
