"""The small CNN of White Box, for MNIST and CIFAR-10, and its forms with CAM and CBAM."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from xcam.core.instantiate import check_count
from xcam.models.whitebox.cbam import CBAM

__all__ = ["SimpleCNN"]

Attention = Literal["none", "cam", "cbam"]
_WIDTHS = (32, 64, 128)
_HIDDEN = 1024


class SimpleCNN(nn.Module):
    """Three blocks of 3x3 convolution, batch norm, ReLU and max-pooling; two linear layers.

    The classifier of the White Box project, with its indices of `features`: convolutions at
    0, 4 and 8, batch norms at 1, 5 and 9, ReLUs at 2, 6 and 10, poolings at 3, 7 and 11. Its maps
    were taken from `features.11`, after the last pooling; `default_layer` gives `features.10`, at
    twice the size. 1,284,042 parameters for 1x28x28, 2,202,122 for 3x32x32, with 10 classes.

    With `attention="cam"` one linear layer reads the means of `features.11`, so that method `cam`
    explains it with `layer="features.11"`: 94,410 and 94,986 parameters. With `"cbam"` a `CBAM`
    follows each convolution, before its batch norm: 1,287,271 and 2,205,351. The original builds
    the other form's classifier, too, and never calls it.

    The output is logits. The original ends in a softmax and is trained with the cross-entropy of
    its probabilities, that is a softmax twice, whose loss cannot fall below ln(e + 9) − 1 = 1.46,
    and its gradients are those of probabilities. For the gradients there is `output="prob"`;
    `softmax=True` trains by that loss. It acts in training mode only: a softmax has no weights, and
    in eval mode the net gives its logits, so that methods and metrics take one softmax, not two.

    Weights are drawn from torch's global generator, as torch does.

    Args:
        num_classes: The number of logits.
        in_channels: The number of channels of the images.
        input_size: (H, W) of the images, or one number for a square; at least 8.
        attention: `"none"`, `"cam"` or `"cbam"`.
        softmax: Whether the output in training mode is probabilities, as in the original.
        dead_weights: Whether to build what the original builds and never calls, for its published
            counts: 1,285,332 and 2,203,412 with CAM, 1,288,561 and 2,206,641 with CBAM.

    Raises:
        ValueError: An image side below 8, of which three poolings leave nothing, or no such
            attention.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        input_size: int | tuple[int, int] = 32,
        attention: Attention = "none",
        softmax: bool = False,
        dead_weights: bool = False,
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        check_count("in_channels", in_channels)
        height, width = _read_size(input_size)
        if attention not in get_args(Attention):
            raise ValueError(f"attention must be 'none', 'cam' or 'cbam', got {attention!r}")
        self.input_shape = (in_channels, height, width)
        self.softmax = softmax
        blocks: list[nn.Module] = []
        for before, after in zip((in_channels, *_WIDTHS), _WIDTHS, strict=False):
            convolution = nn.Conv2d(before, after, 3, padding=1)
            blocks += [convolution, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*blocks)
        has_cbam = attention == "cbam"
        self.attention = nn.ModuleList(
            [CBAM(width, form="whitebox") for width in _WIDTHS if has_cbam]
        )
        cells = (height // 8) * (width // 8)
        makers = {
            False: lambda: _make_flat(cells, num_classes),
            True: lambda: _make_cam(num_classes),
        }
        self.classifier = makers[attention == "cam"]()
        if dead_weights and attention != "none":
            self.dead = makers[attention != "cam"]()

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
        logits: Tensor = self.classifier(self._extract_features(images))
        return logits.softmax(1) if self.softmax and self.training else logits

    def _extract_features(self, images: Tensor) -> Tensor:
        if not self.attention:
            features: Tensor = self.features(images)
            return features
        gates = iter(self.attention)
        for layer in self.features:
            images = layer(images)
            if isinstance(layer, nn.Conv2d):
                images = next(gates)(images)
        return images


def _read_size(size: object) -> tuple[int, int]:
    """Return the height and width of the images."""
    sides = size if isinstance(size, list | tuple) else (size, size)
    if len(sides) != 2 or not all(type(side) is int and side >= 8 for side in sides):
        raise ValueError(
            "input_size must be one whole number of pixels or two, (H, W), of at least 8, got "
            f"{size!r}"
        )
    return sides[0], sides[1]


def _make_flat(cells: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(_WIDTHS[-1] * cells, _HIDDEN),
        nn.ReLU(),
        nn.Linear(_HIDDEN, num_classes),
    )


def _make_cam(num_classes: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_WIDTHS[-1], num_classes))
