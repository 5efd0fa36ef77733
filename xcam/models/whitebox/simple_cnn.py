"""The small CNN of White Box, for MNIST and CIFAR-10."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["SimpleCNN"]

_WIDTHS = (32, 64, 128)
_HIDDEN = 1024


class SimpleCNN(nn.Module):
    """Three blocks of 3x3 convolution, batch norm, ReLU and max-pooling; two linear layers.

    The classifier of the White Box project, with its indices of `features`: convolutions at
    0, 4 and 8, batch norms at 1, 5 and 9, ReLUs at 2, 6 and 10, poolings at 3, 7 and 11. Its maps
    were taken from `features.11`, after the last pooling; `default_layer` gives `features.10`, at
    twice the size. 1,284,042 parameters for 1x28x28, 2,202,122 for 3x32x32, with 10 classes.

    The output is logits. The original ends in a softmax and is trained with the cross-entropy of
    its probabilities, that is a softmax twice, whose loss cannot fall below ln(e + 9) − 1 = 1.46,
    and its gradients are those of probabilities: for these there is `output="prob"`.

    Weights are drawn from torch's global generator, as torch does.

    Args:
        num_classes: The number of logits.
        in_channels: The number of channels of the images.
        input_size: (H, W) of the images, or one number for a square; at least 8.

    Raises:
        ValueError: An image side below 8, of which three poolings leave nothing.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        input_size: int | tuple[int, int] = 32,
    ) -> None:
        super().__init__()
        height, width = (input_size,) * 2 if isinstance(input_size, int) else input_size
        if min(height, width) < 8:
            raise ValueError(f"input_size must be at least 8 pixels a side, got {input_size!r}")
        self.input_shape = (in_channels, height, width)
        blocks: list[nn.Module] = []
        for before, after in zip((in_channels, *_WIDTHS), _WIDTHS, strict=False):
            convolution = nn.Conv2d(before, after, 3, padding=1)
            blocks += [convolution, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(_WIDTHS[-1] * (height // 8) * (width // 8), _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) of normalized images (B, in_channels, H, W).

        Raises:
            ValueError: Images of another shape than the net was made for.
        """
        if images.shape[1:] != self.input_shape:
            raise ValueError(
                f"the net was made for images of shape (B, {', '.join(map(str, self.input_shape))})"
                f", got {tuple(images.shape)}; resize them, or make it with their input_size"
            )
        logits: Tensor = self.classifier(self.features(images))
        return logits
