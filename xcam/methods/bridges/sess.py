"""SESS's formula: a CAM of many windows of the image at several scales, put together."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam import imaging
from xcam.core import Target
from xcam.engine import forward
from xcam.engine.chunks import collect
from xcam.engine.clean import bind_clean_pass
from xcam.engine.shared import keep_nothing
from xcam.methods.bridges.refinecam import require_base

__all__ = ["explain_windows"]

_KERNEL, _SIGMA = 11, 5.0  # of the blur at the end


def explain_windows(method: Any, model: nn.Module, images: Tensor, target: Target) -> Tensor:  # noqa: ANN401
    """Average the base's maps of windows, weighted by the windows' probabilities."""
    base, images = require_base(method), images.detach()
    if not target.bound:
        bind_clean_pass(model, images, target)
    size = (images.shape[2], images.shape[3])
    side = min(size)
    places = _list_places(size, side, method)
    maps = []
    for row in range(len(images)):
        image = images[row : row + 1]
        rows = torch.full((len(places),), row, device=images.device)

        def cut(part: slice, image: Tensor = image) -> Tensor:
            return torch.cat([_cut(image, *place, side) for place in places[part]])

        def score(part: slice, rows: Tensor = rows) -> Tensor:
            with torch.no_grad():
                prediction = forward.call(model, cut(part))
            return target.scores(prediction, rows[part], output="prob")

        def explain(part: slice, rows: Tensor = rows) -> Tensor:
            with keep_nothing():  # since nobody else explains these windows
                found = base.maps(model, cut(part), target.select(rows[part]))
            found = imaging.normalize(found.relu())
            return imaging.normalize(imaging.resize(found, (side, side)))

        weights = collect(len(places), score, images).clamp(min=0)
        highest = weights.max()
        weights = torch.where(highest > 0, weights / highest.where(highest > 0, 1), 1)
        cams = collect(len(places), explain, images)
        pasted = torch.stack(
            [
                _paste(cam * weight, *place, size)
                for cam, weight, place in zip(cams, weights, places, strict=True)
            ]
        )
        seen = pasted > method.theta
        mean = torch.where(seen, pasted, 0).sum(0) / seen.sum(0).clamp(min=1)
        maps.append(_blur(mean) if method.smooth else mean)
    return torch.stack(maps)


_Place = tuple[int, int, int, int]  # left, top, width and height of the enlarged image


def _list_places(size: tuple[int, int], side: int, method: Any) -> list[_Place]:  # noqa: ANN401
    """List the windows that cover the image at each scale, without overlap but for the last."""
    step = round(side * method.growth)
    places = []
    for scale in (side + step * count for count in range(method.n_scales)):
        height, width = (int(length * scale / side) for length in size)
        places += [
            (left, top, width, height)
            for top in _list_starts(height, side)
            for left in _list_starts(width, side)
        ]
    return places


def _list_starts(length: int, side: int) -> list[int]:
    return [min(start, length - side) for start in range(0, length, side)]


def _cut(image: Tensor, left: int, top: int, width: int, height: int, side: int) -> Tensor:
    """Return a window of an image (1, C, H, W) that is enlarged first."""
    enlarged = F.interpolate(image.float(), (height, width), mode="bilinear", antialias=True)
    return enlarged[:, :, top : top + side, left : left + side].to(image.dtype)


def _paste(
    cam: Tensor, left: int, top: int, width: int, height: int, size: tuple[int, int]
) -> Tensor:
    """Return the map (H, W) of a window's map, zero outside of it."""
    whole = cam.new_zeros(1, height, width)
    whole[:, top : top + cam.shape[0], left : left + cam.shape[1]] = cam
    return imaging.resize(whole, size)[0]


def _blur(values: Tensor) -> Tensor:
    """Blur a map (H, W) by a Gaussian, its borders mirrored."""
    steps = torch.arange(_KERNEL, device=values.device, dtype=values.dtype) - _KERNEL // 2
    kernel = (-0.5 * (steps / _SIGMA) ** 2).exp()
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    for _ in range(2):
        reach = min(_KERNEL // 2, values.shape[1] - 1)
        padded = F.pad(values[None, None], (reach, reach, 0, 0), mode="reflect")
        missing = _KERNEL // 2 - reach
        padded = F.pad(padded, (missing, missing, 0, 0), mode="replicate")
        values = F.conv2d(padded, kernel)[0, 0].mT
    return values
