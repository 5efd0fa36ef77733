"""How far the maps of two models agree: do they look at the same pixels?"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from xcam.imaging import normalize, resize, sides_of
from xcam.stored_maps import StoredMaps

__all__ = ["Mode", "stability_iou"]

Mode: TypeAlias = Literal["pixel", "row"]
"""Over all pixels of an image, or over each of its rows and then their mean."""

_EPSILON = 1e-6  # of the published code


def stability_iou(
    maps_a: Tensor | str | Path,
    maps_b: Tensor | str | Path,
    threshold: float = 100,
    mode: Mode = "pixel",
    size: int | tuple[int, int] | None = None,
) -> Tensor:
    """How far two models look at the same pixels: the IoU of their maps, an image each.

    A = a > threshold, B = b > threshold, IoU = |A ∩ B| / |A ∪ B|, and 1 where both are empty (Lee
    et al., 2021, LFI-CAM, arXiv:2105.00937, for models that were trained with different
    hyper-parameters). In [0, 1], higher is more stable. A map that is high nearly everywhere
    agrees with any other such map: look at the maps, too.

    Maps of floats are min-maxed, each to [0, 255]; a flat map becomes zeros. Bytes are taken as
    they are. LFI-CAM compares maps of the images' size, as those of an `Explanation` are; for maps
    at their own resolution, which may differ from model to model, give that `size`.

    `mode="row"` repeats an error of LFI-CAM's code, whose sums run over an image's columns and
    colours, not over its pixels: the IoU of every row of pixels, (|A ∩ B| + e) / (|A ∪ B| + e) with
    e = 1e-6, and their mean. A row in which neither map is high counts as 1, so that these numbers
    are larger, by how much depending on the empty rows, and are comparable with those of LFI-CAM's
    code alone. That code also stores maps as `uint8(256 · m)`, m in [0, 1], by which the highest
    pixel wraps to 0; files that it wrote are read with the pixel as it is.

    A folder holds `.npy` arrays (h, w) by image name, float or uint8, also (h, w, 3) uint8 as
    LFI-CAM's code writes them; or what `xcam.evaluate(…, save_maps=True)` stored of a method, at
    the maps' own resolution.

    Args:
        maps_a: (N, h, w) floating point or uint8; or a folder of maps.
        maps_b: The other model's, of the same images.
        threshold: In [0, 255), of maps whose range is 0 to 255.
        mode: `"pixel"` or `"row"`.
        size: (H, W), or one number for a square, to which maps are resized before all else
            (bilinear, as `explain` resizes them). None compares them as they are.

    Returns:
        (N,) float32; of folders in the order of the images' names. The published number is its
        mean.

    Raises:
        TypeError: Not two tensors or two folders, or maps of another dtype.
        ValueError: Other shapes than (N, h, w), two that differ without a `size` for both, or
            numbers that are not finite; images that are in one folder alone; a threshold, mode or
            size that there is not.
        FileNotFoundError: No such folder, or no maps in it.
        FileFormatError: A damaged file.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be 'pixel' or 'row', got {mode!r}")
    if not 0 <= threshold < 255:
        raise ValueError(f"threshold must be in [0, 255), as of bytes, got {threshold!r}")
    sides = None if size is None else sides_of(size)
    if isinstance(maps_a, Tensor) and isinstance(maps_b, Tensor):
        return _agreement(maps_a, maps_b, threshold, mode, sides)
    if not (isinstance(maps_a, str | Path) and isinstance(maps_b, str | Path)):
        raise TypeError(
            "maps_a and maps_b must be two tensors or two folders, got "
            f"{type(maps_a).__name__} and {type(maps_b).__name__}"
        )
    first, second = StoredMaps(maps_a), StoredMaps(maps_b)
    return torch.cat(
        [_of_image(name, first, second, threshold, mode, sides) for name in _shared(first, second)]
    )


def _shared(first: StoredMaps, second: StoredMaps) -> list[str]:
    """The images of both folders, which must be the same."""
    for one, other in ((first, second), (second, first)):
        alone = sorted(set(one.ids) - set(other.ids))
        if alone:
            more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
            raise ValueError(
                f"{str(other.folder)!r} has no maps of {', '.join(alone[:5])}{more}, which "
                f"{str(one.folder)!r} has; dump both of the same images, by the same names"
            )
    return first.ids


def _of_image(
    name: str,
    first: StoredMaps,
    second: StoredMaps,
    threshold: float,
    mode: Mode,
    size: tuple[int, int] | None,
) -> Tensor:
    try:
        return _agreement(first.of(name)[None], second.of(name)[None], threshold, mode, size)
    except (TypeError, ValueError) as error:
        raise type(error)(f"image {name!r}: {error}") from error


def _agreement(
    a: Tensor, b: Tensor, threshold: float, mode: Mode, size: tuple[int, int] | None
) -> Tensor:
    if a.ndim != 3 or b.ndim != 3 or len(a) != len(b):
        raise ValueError(
            f"maps must be (N, h, w), of the same images, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if size is None and a.shape != b.shape:
        raise ValueError(
            f"maps must be of the same size, got {tuple(a.shape)} and {tuple(b.shape)}; give the "
            "images' size, such as size=224 or --size 224, to compare both at that"
        )
    above_a, above_b = _above(a, threshold, size), _above(b, threshold, size).to(a.device)
    axes = (1, 2) if mode == "pixel" else (2,)
    both = (above_a & above_b).sum(axes)
    either = (above_a | above_b).sum(axes)
    if mode == "pixel":
        return torch.where(either > 0, both / either.clamp(min=1), 1)
    return ((both + _EPSILON) / (either + _EPSILON)).mean(1)


def _above(maps: Tensor, threshold: float, size: tuple[int, int] | None) -> Tensor:
    """Where maps (N, h, w), at a size if one is given, are above the threshold: (N, h, w) bool."""
    if maps.dtype != torch.uint8 and not maps.is_floating_point():
        raise TypeError(f"maps must be floating point or uint8, got {maps.dtype}")
    values = maps.detach().float()
    if not bool(values.isfinite().all()):
        raise ValueError("maps must be finite, got NaN or infinity")
    if size is not None:
        values = resize(values, size)
    return (values if maps.dtype == torch.uint8 else normalize(values) * 255) > threshold
