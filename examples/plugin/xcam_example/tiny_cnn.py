"""A net by name: `xcam.models.load("example:tiny_cnn")`."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["TinyCNN"]


class TinyCNN(nn.Module):
    """One convolution, global average pooling, one linear layer.

    Args:
        num_classes: The number of logits.
        in_channels: The number of channels of the images.
        width: The number of channels of the convolution.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU())
        self.fc = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, in_channels, H, W) in [0, 1]."""
        logits: Tensor = self.fc(self.features(images).mean((2, 3)))
        return logits
