"""CBAM, attention to channels and positions, as a module for any CNN."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from xcam.core.instantiate import check_count

__all__ = ["CBAM", "Form", "SpatialGate"]

Form = Literal["paper", "whitebox"]


class CBAM(nn.Module):
    """Convolutional block attention: features are weighted by channel, then by position.

    Woo et al., 2018 (arXiv:1807.06521). With an MLP of one hidden layer that is shared by the two
    poolings, and a convolution of the channels' maximum and mean:

        c = σ(MLP(mean_ij F) + MLP(max_ij F)),  F' = c F
        s = σ(BN(conv([max_k F', mean_k F']))),  F'' = s F'

    It keeps the shape of what it is given, so that it fits behind any layer of a CNN:

        net.layer4 = nn.Sequential(net.layer4, CBAM(512))

    Method `cbam` shows s of any net with such modules.

    Args:
        channels: C of the features.
        reduction: How many times narrower the MLP's hidden layer is.
        kernel_size: Of the convolution of the spatial gate; odd.
        form: `"paper"`, or `"whitebox"` for that of the White Box project, whose convolution has a
            bias and whose s takes a ReLU before the sigmoid: it is at least 1/2 everywhere.

    Raises:
        ValueError: An argument out of its range.
    """

    def __init__(
        self, channels: int, reduction: int = 16, kernel_size: int = 7, form: Form = "paper"
    ) -> None:
        super().__init__()
        check_count("channels", channels)
        check_count("reduction", reduction)
        if channels // reduction < 1:
            raise ValueError(
                f"reduction must be at most the {channels} channels, got {reduction!r}: the hidden "
                "layer would have no unit"
            )
        self.channel = ChannelGate(channels, reduction)
        self.spatial = SpatialGate(kernel_size, form)

    def forward(self, features: Tensor) -> Tensor:
        """Return the weighted features, of the shape (B, C, h, w) of what is given."""
        refined = features * self.channel(features)
        weighted: Tensor = refined * self.spatial(refined)
        return weighted


class ChannelGate(nn.Module):
    """The weights of channels, from their means and maxima.

    Args:
        channels: C of the features.
        reduction: How many times narrower the hidden layer is.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = channels // reduction
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return weights (B, C, 1, 1) in (0, 1) of features (B, C, h, w)."""
        scores = self.mlp(features.mean((2, 3))) + self.mlp(features.amax((2, 3)))
        weights: Tensor = scores.sigmoid()[:, :, None, None]
        return weights


class SpatialGate(nn.Module):
    """The weights of positions, from the maximum and mean of the channels.

    Args:
        kernel_size: Of the convolution; odd.
        form: See `CBAM`.
    """

    def __init__(self, kernel_size: int, form: Form) -> None:
        super().__init__()
        if form not in ("paper", "whitebox"):
            raise ValueError(f"form must be 'paper' or 'whitebox', got {form!r}")
        if type(kernel_size) is not int or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, such as 7, got {kernel_size!r}")
        is_whitebox = form == "whitebox"
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=is_whitebox)
        self.norm = nn.BatchNorm2d(1)
        self.relu = nn.ReLU() if is_whitebox else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Return weights (B, 1, h, w) in (0, 1) of features (B, C, h, w)."""
        pooled = torch.cat([features.amax(1, keepdim=True), features.mean(1, keepdim=True)], dim=1)
        weights: Tensor = self.relu(self.norm(self.conv(pooled))).sigmoid()
        return weights
