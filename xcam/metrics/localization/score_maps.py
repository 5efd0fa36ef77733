"""Score maps of weakly supervised object localization: at input size, in [0, 1]."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor

from xcam.core import Explanation, Range
from xcam.imaging import is_flat, normalize
from xcam.metrics.inputs import read_maps
from xcam.metrics.precision import to_finest

__all__ = ["Resize", "Step", "list_thresholds", "make_score_maps"]

Step: TypeAlias = Annotated[float, Range(above=0, most=1)]
"""Between two thresholds on maps in [0, 1]."""

Resize: TypeAlias = Literal["bilinear", "bicubic"]
"""How a map came to the images' size.

`"bilinear"` takes `Explanation.maps` as they are; `"bicubic"` resizes `Explanation.raw` as Choe et
al. do. A map that a method gave at the images' size is the same in both.
"""


def make_score_maps(explanation: Explanation, images: Tensor, resize: Resize) -> Tensor:
    """Return min-max normalized maps (B, H, W), float64 if the device has it; flat maps are zeros.

    Raises:
        ValueError: The maps do not fit the images.
    """
    frozen = read_maps(explanation, images)
    maps, size = frozen, frozen.shape[1:]
    if resize == "bicubic" and explanation.raw.shape[-2:] != size:
        raw = to_finest(explanation.reduced.to(images.device))
        maps = F.interpolate(raw[:, None], tuple(size), mode="bicubic", align_corners=False)[:, 0]
    # Flatness is told by the float32 maps: in float64, rounding would look like a shape.
    return normalize(to_finest(maps)).masked_fill(is_flat(frozen)[:, None, None], 0)


def list_thresholds(step: float) -> list[float]:
    """Return 0, step, 2 step, … below 1."""
    return [index * step for index in range(math.ceil(1 / step))]
