"""The attention mechanism of L-CAM beside a frozen classifier, and the measures of its maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xcam.core import extract_logits
from xcam.methods.trainable import heads

__all__ = ["AttentionMechanism", "area", "own", "variation"]


class AttentionMechanism(nn.Module):
    """A frozen classifier, and beside it the convolution that makes the maps of its features.

    Args:
        backbone: The classifier, of normalised images.
        layer: The name of a module in it, whose output the maps are made of.
        attention: The convolution to a map a class.
    """

    def __init__(self, backbone: nn.Module, layer: str, attention: nn.Conv2d) -> None:
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        self.attention = attention
        self.tap = heads.Tap(backbone, layer)

    def forward(self, images: Tensor) -> Tensor:
        """The classifier's own logits (B, K) of normalised images (B, C, H, W)."""
        return extract_logits(self.backbone(images), len(images))

    def train(self, mode: bool = True) -> AttentionMechanism:
        """Of the attention alone: in training mode batch norm and dropout would not be frozen."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def seen(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """The logits (B, K) and features (B, C, h, w) of a clean pass of the model around this."""
        found: list[Tensor] = []

        def keep(features: Tensor) -> Tensor:
            found.append(features.clone())  # a ReLU behind the layer may work in place
            return features

        return self.tap.run(model, images, keep), found[0]

    def masks(self, features: Tensor) -> Tensor:
        """The map a of each class, (B, K, h, w) in [0, 1], in float32 at least, of features."""
        raw: Tensor = self.attention(features)
        return raw.to(torch.promote_types(raw.dtype, torch.float32)).sigmoid()


def own(masks: Tensor, classes: Tensor) -> Tensor:
    """(B, 1, h, w): of the maps (B, K, h, w) of each image that of its class."""
    return masks[torch.arange(len(masks), device=masks.device), classes][:, None]


def variation(masks: Tensor) -> Tensor:
    """V of maps (N, M, h, w): summed over all maps, half the mean over N."""
    down, right = masks[:, :, 1:] - masks[:, :, :-1], masks[..., 1:] - masks[..., :-1]
    edges = (masks[:, :, 0], masks[:, :, -1], masks[..., 0], masks[..., -1])
    border = torch.stack([edge.square().sum() for edge in edges]).sum()
    return (down.square().sum() + right.square().sum() + 0.3 * border) / (2 * len(masks))


def area(masks: Tensor, power: float) -> Tensor:
    """The mean of maps in [0, 1] to a power; its derivative is finite at 0."""
    return (masks + 0.0005).pow(power).mean()
