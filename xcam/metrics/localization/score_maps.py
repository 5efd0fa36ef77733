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

__all__ = ["Resize", "Scaling", "Spacing", "Step", "list_thresholds", "make_score_maps"]

Step: TypeAlias = Annotated[float, Range(above=0, most=1)]
"""Between two thresholds on maps in [0, 1]."""

Resize: TypeAlias = Literal["bilinear", "bicubic"]
"""How a map came to the images' size.

`"bilinear"` takes `Explanation.maps` as they are; `"bicubic"` resizes `Explanation.raw` as Choe et
al. do. A map that a method gave at the images' size is the same in both.
"""

Scaling: TypeAlias = Literal["minmax", "max", "clip"]
"""How a map came into [0, 1].

`"minmax"` stretches it from its lowest to its highest value; `"max"` divides it by the highest, and
`"clip"` leaves it as it is, as probabilities are: both cut what is negative or above 1. A map that
is flat, or with `"max"` nowhere positive, is zeros.
"""

Spacing: TypeAlias = Literal["even", "log"]
"""Where thresholds are: at 0, step, 2 step …, or at 0 and 10^(−7 (1 − step)) … 10^(−7 step)."""


def make_score_maps(
    explanation: Explanation,
    images: Tensor,
    resize: Resize,
    scaling: Scaling = "minmax",
    magnitude: bool = False,
) -> Tensor:
    """Return maps (B, H, W) in [0, 1], float64 if the device has it; flat maps are zeros.

    Args:
        explanation: Whose maps they are.
        images: (B, C, H, W).
        resize: How they come to the images' size.
        scaling: How they come into [0, 1].
        magnitude: Whether |map| is scaled, which is taken once it is resized.

    Raises:
        ValueError: The maps do not fit the images.
    """
    frozen = read_maps(explanation, images)
    maps, size = frozen, frozen.shape[1:]
    if resize == "bicubic" and explanation.raw.shape[-2:] != size:
        raw = to_finest(explanation.reduced.to(images.device))
        maps = F.interpolate(raw[:, None], tuple(size), mode="bicubic", align_corners=False)[:, 0]
    if magnitude:
        frozen, maps = frozen.abs(), maps.abs()
    # Flatness is told by the float32 maps: in float64, rounding would look like a shape.
    return _scale(to_finest(maps), scaling).masked_fill(is_flat(frozen)[:, None, None], 0)


def _scale(maps: Tensor, scaling: Scaling) -> Tensor:
    if scaling == "minmax":
        return normalize(maps)
    if scaling == "clip":
        return maps.clamp(0, 1)
    highest = maps.amax((1, 2), keepdim=True)
    return (maps / highest.where(highest > 0, math.inf)).clamp(0, 1)


def list_thresholds(step: float, spacing: Spacing = "even") -> list[float]:
    """Return the thresholds below 1, from 0 on; see `Spacing`."""
    steps = [index * step for index in range(math.ceil(1 / step))]
    if spacing == "even":
        return steps
    return [0.0, *(10 ** (-7 * each) for each in reversed(steps[1:]))]
