"""What White Box does to maps before it ranks them; `preset="whitebox"` asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from xcam import imaging
from xcam.forks import importing

__all__ = ["WHITE_BOX_PICTURES", "WHITE_BOX_PIXELS", "Rendering", "render", "stretch_elements"]

Rendering: TypeAlias = Literal["gray", "jet"]

WHITE_BOX_PICTURES: Mapping[str, Mapping[str, object]] = {
    "whitebox": {"rendering": "gray"},
    "whitebox_jet": {"rendering": "jet"},
}
"""The presets of class activation maps that read no gradient."""
WHITE_BOX_PIXELS: Mapping[str, object] = {"output": "prob", "reduce": "sum", "stretched": True}
"""The preset of gradients at the pixels."""


def stretch_elements(values: Tensor) -> Tensor:
    """Scale each image's values (B, C, H, W), or (B, H, W), into [0, 1] over all its elements."""
    return imaging.normalize(values.flatten(1)[:, None]).view_as(values)


def render(maps: Tensor, size: tuple[int, int], rendering: Rendering) -> Tensor:
    """Turn maps (B, h, w) into 8-bit pictures of the images' size, in [0, 1].

    Each map is scaled into [0, 1], cut to whole 255ths, and resized by Pillow's Lanczos filter.

    Args:
        maps: At the layer's size.
        size: (H, W) of the images.
        rendering: `"gray"` for (B, H, W), or `"jet"` for (B, 3, H, W), the colors of OpenCV's JET.
    """
    with importing():
        from PIL import Image

    steps = (imaging.normalize(maps.detach()) * 255).to(torch.uint8).cpu().numpy()
    height, width = size
    pictures = [
        Image.fromarray(one).resize((width, height), Image.Resampling.LANCZOS) for one in steps
    ]
    gray = np.stack([np.asarray(picture) for picture in pictures])
    values = gray if rendering == "gray" else _read_jet()[gray].transpose(0, 3, 1, 2)
    return torch.from_numpy(values.astype(np.float32) / 255).to(maps.device)


def _read_jet() -> np.ndarray[Any, Any]:
    """Return OpenCV's JET, (256, 3) RGB: dark red for 255, and a full channel in between."""
    with importing():
        import cv2

    steps = np.arange(256, dtype=np.uint8)[:, None]
    return np.asarray(cv2.applyColorMap(steps, cv2.COLORMAP_JET)).reshape(256, 3)[:, ::-1]
