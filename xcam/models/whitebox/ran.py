"""Residual attention nets, as the White Box project builds them."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from xcam.core.instantiate import check_count
from xcam.models.cifar.stages import conv

__all__ = ["RAN", "AttentionModule", "ResidualUnit", "SoftMask"]

# For each of the three stages how many attention modules follow its first unit.
_MODULES = {56: (1, 1, 1), 92: (1, 2, 3)}
_SKIPS = (2, 1, 0)


class RAN(nn.Module):
    """Residual attention net: what a trunk of residual units gives is weighted by 1 + M.

    After Wang et al., 2017 (arXiv:1704.06904), in the form of the White Box project: `stages` holds
    a residual unit and one or more of `AttentionModule` for each of three sizes, and `tail` three
    units more. Attention-56 has `stages.0` to `.5`. Units end in a ReLU, where the paper's begin
    with one, and those of a mask share their weights, where the paper's do not. 18,199,562
    parameters for one channel and 10 classes, 18,202,762 for three.

    The output is logits; see `SimpleCNN` for `softmax`. Weights are drawn from torch's global
    generator, as torch does.

    Args:
        num_classes: The number of logits.
        in_channels: The number of channels of the images.
        depth: 56 or 92, which has attention modules of the last two sizes twice and three times.
        stem: `"small"` for a 5x5 convolution and pooling that halve small images; `"imagenet"` for
            a 7x7 convolution of stride 2 and pooling, with a stride of 2 in `tail`, as in the
            paper.
        width: Channels of the stem, 64 in the published nets. The others are multiples of it.
        softmax: Whether the output in training mode is probabilities, as in the original.
        dead_weights: Whether to build the projections that the original builds in every unit, and
            never calls where the shortcut is the identity: 27,987,466 and 27,990,666 parameters.

    Raises:
        ValueError: An argument out of its range.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        depth: Literal[56, 92] = 56,
        stem: Literal["small", "imagenet"] = "small",
        width: int = 64,
        softmax: bool = False,
        dead_weights: bool = False,
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        check_count("in_channels", in_channels)
        if depth not in _MODULES:
            raise ValueError(f"depth must be 56 or 92, got {depth!r}")
        if stem not in ("small", "imagenet"):
            raise ValueError(f"stem must be 'small' or 'imagenet', got {stem!r}")
        if type(width) is not int or width < 2 or width % 2:
            raise ValueError(f"width must be even and positive, got {width!r}")
        self.softmax = softmax
        is_small = stem == "small"
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 5, padding=2)
            if is_small
            else nn.Conv2d(in_channels, width, 7, stride=2, padding=3),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2) if is_small else nn.MaxPool2d(3, stride=2, padding=1),
        )
        stages: list[nn.Module] = []
        before = width
        for index, (modules, skips) in enumerate(zip(_MODULES[depth], _SKIPS, strict=True)):
            after = width * 2 ** (index + 1)
            stages.append(ResidualUnit(before, 2 * after, 1 if index == 0 else 2, dead_weights))
            before = 2 * after
            for _ in range(modules):
                stages.append(AttentionModule(before, after, skips, dead_weights))
                before = after
        self.stages = nn.Sequential(*stages)
        last = 4 * before
        self.tail = nn.Sequential(
            ResidualUnit(before, last, 1 if is_small else 2, dead_weights),
            ResidualUnit(last, last, 1, dead_weights),
            ResidualUnit(last, last, 1, dead_weights),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(last, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of normalized images (B, in_channels, H, W)."""
        features = self.tail(self.stages(self.stem(images)))
        logits: Tensor = self.fc(self.pool(features).flatten(1))
        return logits.softmax(1) if self.softmax and self.training else logits


class ResidualUnit(nn.Module):
    """A bottleneck, ReLU(branch(x) + shortcut(x)).

    Args:
        before: Channels of the input.
        after: Channels of the output.
        stride: Of the 3x3 convolution, and of the shortcut.
        dead_weights: Whether to build the projection also where the shortcut is the identity.
    """

    def __init__(
        self, before: int, after: int, stride: int = 1, dead_weights: bool = False
    ) -> None:
        super().__init__()
        inner = after // 4
        self.branch = nn.Sequential(
            conv(before, inner, 1),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            conv(inner, inner, 3, stride),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            conv(inner, after, 1),
            nn.BatchNorm2d(after),
        )
        self.is_identity = stride == 1 and before == after
        if dead_weights or not self.is_identity:
            self.projection = nn.Sequential(
                nn.Conv2d(before, after, 1, stride), nn.BatchNorm2d(after)
            )
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Return features (B, after, h / stride, w / stride) of features (B, before, h, w)."""
        shortcut = features if self.is_identity else self.projection(features)
        mixed: Tensor = self.relu(self.branch(features) + shortcut)
        return mixed


class AttentionModule(nn.Module):
    """Residual attention: post((1 + M) T), with trunk T and mask M of the same features.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        skips: Of the mask, see `SoftMask`.
        dead_weights: See `ResidualUnit`.
    """

    def __init__(self, before: int, after: int, skips: int, dead_weights: bool = False) -> None:
        super().__init__()
        self.pre = ResidualUnit(before, after, 1, dead_weights)
        self.trunk = nn.Sequential(
            ResidualUnit(after, after, 1, dead_weights), ResidualUnit(after, after, 1, dead_weights)
        )
        self.mask = SoftMask(after, skips, dead_weights)
        self.post = ResidualUnit(after, after, 1, dead_weights)

    def forward(self, features: Tensor) -> Tensor:
        """Return features (B, after, h, w) of features (B, before, h, w)."""
        features = self.pre(features)
        mixed: Tensor = self.post((1 + self.mask(features)) * self.trunk(features))
        return mixed


class SoftMask(nn.Module):
    """The mask M in (0, 1): features are pooled and resized back, with skips between equal sizes.

    One residual unit is called at every size, and one 1x1 convolution twice at the end.

    Args:
        channels: Of the features, and of M.
        skips: Sizes below that of the features at which a skip leads past the smallest one.
        dead_weights: See `ResidualUnit`.
    """

    def __init__(self, channels: int, skips: int, dead_weights: bool = False) -> None:
        super().__init__()
        self.skips = skips
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.unit = ResidualUnit(channels, channels, 1, dead_weights)
        self.conv = conv(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return M of the shape (B, C, h, w) of the features."""
        size, kept = features.shape[2:], []
        for _ in range(self.skips):
            features = self.unit(self.pool(features))
            kept.append(features)
        features = self.unit(self.unit(self.pool(features)))
        for skip in reversed(kept):
            features = self.unit(_resize(features, skip.shape[2:]) + skip)
        mask: Tensor = self.conv(self.conv(_resize(features, size))).sigmoid()
        return mask


def _resize(features: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(features, size, mode="bilinear", align_corners=True)
