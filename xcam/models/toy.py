"""Tiny seeded nets, for tests, examples and contract suites: no download, built in milliseconds.

Two nets built with the same arguments are equal, and building one draws nothing from torch's global
generator. New nets are in eval mode and in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xcam.models.whitebox.cbam import CBAM
from xcam.models.whitebox.ran import SoftMask
from xcam.models.whitebox.warn import AttentionOutput

__all__ = ["AttentionNet", "GapNet", "LinearNet", "SmallCNN", "TokenNet"]


class GapNet(nn.Module):
    """Two 3x3 convolutions, global average pooling, one linear layer: the net of the CAM paper.

    CAM, Grad-CAM and HiResCAM of it are the same map up to a positive scale. The layer of the maps
    is `features`, at half the image's size; the classifier is `fc`.

    Args:
        channels: The number of channels of the images.
        num_classes: The number of logits.
        seed: The seed of the weights.
        relu: Whether to have ReLUs; without, activations are signed and the logits are affine in
            the image.
    """

    def __init__(
        self, channels: int = 3, num_classes: int = 5, seed: int = 0, relu: bool = True
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.features = nn.Sequential(
                nn.Conv2d(channels, 8, 3, padding=1),
                nn.ReLU() if relu else nn.Identity(),
                nn.Conv2d(8, 12, 3, stride=2, padding=1),
                nn.ReLU() if relu else nn.Identity(),
            )
            self.fc = nn.Linear(12, num_classes)
        _fill(self, seed)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, channels, H, W) of any size."""
        features: Tensor = self.features(images)
        logits: Tensor = self.fc(features.mean(dim=(2, 3)))
        return logits


class LinearNet(nn.Module):
    """Logits that are affine in the pixels, f(x) = W·x + b: every attribution has a closed form.

    Args:
        shape: The shape (C, H, W) of one image.
        num_classes: The number of logits.
        seed: The seed of the weights.
    """

    def __init__(
        self, shape: tuple[int, int, int] = (3, 8, 8), num_classes: int = 5, seed: int = 0
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.fc = nn.Linear(math.prod(shape), num_classes)
        _fill(self, seed)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, C, H, W) of the shape given to the net."""
        logits: Tensor = self.fc(images.flatten(1))
        return logits


class SmallCNN(nn.Module):
    """Convolution, batch norm, ReLU and max-pooling blocks; a classifier that sees positions.

    The batch norms have running statistics and weights other than 0 and 1, so that tests notice
    one that is left in training mode. The maps (`features`) are pooled adaptively to 2x2
    before they are flattened: any image of at least 4 pixels a side (with two blocks) will do.

    Args:
        channels: The number of channels of the images.
        num_classes: The number of logits.
        seed: The seed of the weights and statistics.
        widths: The number of channels of each block; each block halves the map.
        inplace: Whether the ReLUs work in place.
    """

    def __init__(
        self,
        channels: int = 3,
        num_classes: int = 5,
        seed: int = 0,
        widths: tuple[int, ...] = (8, 16),
        inplace: bool = False,
    ) -> None:
        super().__init__()
        blocks = []
        with torch.random.fork_rng(devices=[]):
            for before, after in zip((channels, *widths), widths, strict=False):
                convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
                relu = nn.ReLU(inplace=inplace)
                blocks += [convolution, nn.BatchNorm2d(after), relu, nn.MaxPool2d(2)]
            self.features = nn.Sequential(*blocks)
            self.pool = nn.AdaptiveAvgPool2d(2)
            self.classifier = nn.Linear(4 * widths[-1], num_classes)
        _fill(self, seed)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, channels, H, W)."""
        pooled: Tensor = self.pool(self.features(images))
        logits: Tensor = self.classifier(pooled.flatten(1))
        return logits


class AttentionNet(nn.Module):
    """A convolution, then attention of the nets of White Box, average pooling, one linear layer.

    Args:
        attention: `"cbam"`; `"ran"`, whose mask weights the features; or `"warn"`, whose module
            gives the logits itself.
        channels: The number of channels of the images.
        num_classes: The number of logits.
        seed: The seed of the weights and statistics.
    """

    def __init__(
        self,
        attention: Literal["cbam", "ran", "warn"] = "cbam",
        channels: int = 3,
        num_classes: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        makers: dict[str, Callable[[], nn.Module]] = {
            "cbam": lambda: CBAM(8, reduction=2, kernel_size=3),
            "ran": lambda: SoftMask(8, skips=0),
            "warn": lambda: AttentionOutput(8, 2, num_classes),
        }
        with torch.random.fork_rng(devices=[]):
            self.features = nn.Sequential(nn.Conv2d(channels, 8, 3, stride=2, padding=1), nn.ReLU())
            self.attention = makers[attention]()
            self.fc = None if attention == "warn" else nn.Linear(8, num_classes)
        _fill(self, seed)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, channels, H, W)."""
        features = self.features(images)
        attended = self.attention(features)
        if self.fc is None:
            hypothesis: Tensor = attended[0]
            return hypothesis
        if isinstance(self.attention, SoftMask):
            attended = (1 + attended) * features
        logits: Tensor = self.fc(attended.mean((2, 3)))
        return logits


class TokenNet(nn.Module):
    """A vision transformer in miniature that classifies from its class token (Dosovitskiy, 2021).

    Pre-norm blocks (`blocks[i].norm1`, `.attention`, `.norm2`, `.mlp`) over one class token and the
    patches of a convolution `patch_embed`. The positions are interpolated, so that any image whose
    sides are multiples of `patch` will do.

    Args:
        channels: The number of channels of the images.
        num_classes: The number of logits.
        seed: The seed of the weights.
        patch: The side of a patch in pixels.
        width: The width of a token; a multiple of `heads`.
        depth: The number of blocks.
        heads: The number of attention heads.
    """

    def __init__(
        self,
        channels: int = 3,
        num_classes: int = 5,
        seed: int = 0,
        patch: int = 4,
        width: int = 24,
        depth: int = 2,
        heads: int = 3,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.patch_embed = nn.Conv2d(channels, width, patch, stride=patch)
            self.class_token = nn.Parameter(torch.zeros(1, 1, width))
            self.positions = nn.Parameter(torch.zeros(1, width, 4, 4))
            self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(depth)))
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, num_classes)
        _fill(self, seed)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, channels, H, W)."""
        patches: Tensor = self.patch_embed(images)  # (B, D, h, w)
        positions = F.interpolate(self.positions, patches.shape[2:], mode="bilinear")
        tokens = (patches + positions).flatten(2).transpose(1, 2)  # (B, h·w, D)
        tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1)
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits


class _Block(nn.Module):
    """Pre-norm attention, then a pre-norm two-layer perceptron, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        mixed: Tensor = tokens + self.mlp(self.norm2(tokens))
        return mixed


class _Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al., 2017) over tokens (B, T, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        qkv: Tensor = self.qkv(tokens).unflatten(2, (3, self.heads, -1))  # (B, T, 3, heads, d)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, heads, T, d)
        projected: Tensor = self.projection(mixed.transpose(1, 2).flatten(2))
        return projected


@torch.no_grad()
def _fill(net: nn.Module, seed: int) -> None:
    """Draw all parameters and running statistics from a generator of their own; set eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1 and not name.endswith(("class_token", "positions")):
            tensor.copy_(noise * math.sqrt(2 / tensor[0].numel()))  # He et al., 2015
        elif name.endswith(("weight", "running_var")):
            tensor.copy_(1 + 0.5 * noise.tanh())
        elif not name.endswith("num_batches_tracked"):
            tensor.copy_(0.2 * noise)
    net.eval()
