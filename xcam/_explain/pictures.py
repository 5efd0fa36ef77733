"""The images that a verb is given, as the tensor that the model takes."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn

from xcam.engine import unwrap
from xcam.imaging import Pictures, fit, list_pictures, read_picture
from xcam.models import Normalized

__all__ = ["Images", "load_images"]

Images: TypeAlias = "Tensor | Pictures"
"""A batch (B, C, H, W) as the model takes it, or pictures for a model that says its input size."""


def load_images(model: nn.Module, images: Images) -> Tensor:
    """Return a batch as it is, and pictures as the batch that a model takes.

    Pictures are resized to cover the model's `input_size` (bicubic, antialiased) and their center
    is cropped, as `xcam.read_image` does; they go to the model's device. What is neither, or given
    to a model without an input size, is returned as it is.

    Returns:
        (B, C, H, W), in [0, 1] if they were pictures.

    Raises:
        TypeError, ValueError, FileNotFoundError: See `xcam.imaging.pictures.read_picture`.
    """
    if isinstance(images, Tensor) and images.is_floating_point():
        return images
    net, pictures = unwrap(model), list_pictures(images)
    if pictures is None or not isinstance(net, Normalized) or net.input_size is None:
        return images  # type: ignore[return-value]  # what it is, is checked next
    channels = _count_channels(net)
    if channels not in (1, 3):
        raise ValueError(
            f"a picture has 3 channels, or 1, and the model takes {channels}; give a tensor "
            f"(B, {channels}, H, W)"
        )
    batch = [fit(read_picture(picture, channels), net.input_size) for picture in pictures]
    return torch.stack(batch).to(net.mean)


def _count_channels(net: Normalized) -> int:
    """Return how many channels a net takes: as many as means, unless one mean serves all."""
    if len(net.mean) > 1:
        return len(net.mean)
    convolutions = (module for module in net.modules() if isinstance(module, nn.Conv2d))
    first = next(convolutions, None)
    return 3 if first is None else first.in_channels
