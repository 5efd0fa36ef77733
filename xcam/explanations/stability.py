"""How far the maps of two models agree: do they look at the same pixels?"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from xcam.core import check_finite
from xcam.errors import warn
from xcam.explanations.folder import StoredMaps
from xcam.imaging import is_flat, normalize, parse_size, resize

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
    """Measure how far two models look at the same pixels: the IoU of their maps, for each image.

    A = a > threshold, B = b > threshold, IoU = |A ∩ B| / |A ∪ B|, and 1 where both are empty (Lee
    et al., 2021, LFI-CAM, arXiv:2105.00937, for models that were trained with different
    hyper-parameters). In [0, 1], higher is more stable. A map that is high nearly everywhere
    agrees with any other such map: look at the maps, too.

    Maps of floats are min-maxed, each to [0, 255]; a flat map becomes zeros. Bytes (uint8) are
    taken as they are, and other integers refused, since either may be meant. A warning counts the
    maps that are flat and the images that are 1 by having nothing above the threshold. LFI-CAM
    compares maps of the images' size, as those of an `Explanation` are; for maps at their own
    resolution, which may differ from model to model, give that `size`.

    `mode="row"` repeats an error of LFI-CAM's code, whose sums run over an image's columns and
    colours, not over its pixels: the IoU of every row of pixels, (|A ∩ B| + e) / (|A ∪ B| + e) with
    e = 1e-6, and their mean. A row in which neither map is high counts as 1, so that these numbers
    are larger, by how much depending on the empty rows, and are comparable with those of LFI-CAM's
    code alone. That code also stores maps as `uint8(256 · m)`, m in [0, 1], by which the highest
    pixel wraps to 0; files that it wrote are read with the pixel as it is.

    A folder holds `.npy` arrays by image name, float or uint8: (h, w); or with channels first or
    last, of which those of floats are summed and those of bytes must be equal, as in the (h, w, 3)
    that LFI-CAM's code writes. Or it holds what `xcam.evaluate(…, save_maps=True)` stored of a
    method, at the maps' own resolution.

    Args:
        maps_a: (N, h, w) floating point or uint8; or a folder of maps.
        maps_b: The other model's, of the same images.
        threshold: On the scale of bytes, 0 to 255, whatever range the maps had: 0, or in [1, 255).
            The paper's 100/255 of the range is 100 here.
        mode: `"pixel"` or `"row"`.
        size: (H, W), or one number for a square, to which maps are resized before all else
            (bilinear, as `explain` resizes them). None compares them as they are.

    Returns:
        (N,) float32; of folders in the order of the images' names. The published number is its
        mean.

    Raises:
        TypeError: Not two tensors or two folders, or maps of another dtype.
        ValueError: Other shapes than (N, h, w), two that differ without a `size` for both, or
            numbers that are not finite; images that are in one folder alone; files that hold no
            map; a threshold, mode or size that is not allowed.
        FileNotFoundError: No such folder, or no maps in it.
        FileFormatError: A damaged file.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be 'pixel' or 'row', got {mode!r}")
    _check_threshold(threshold)
    sides = None if size is None else parse_size(size)
    if isinstance(maps_a, Tensor) and isinstance(maps_b, Tensor):
        found, names = _compare_maps(maps_a, maps_b, threshold, mode, sides), ("maps_a", "maps_b")
    elif isinstance(maps_a, str | Path) and isinstance(maps_b, str | Path):
        first, second = StoredMaps(maps_a), StoredMaps(maps_b)
        images = _list_shared_images(first, second)
        parts = [_compare_image(name, first, second, threshold, mode, sides) for name in images]
        found = _Agreement(*map(torch.cat, zip(*parts, strict=True)))
        names = (repr(str(maps_a)), repr(str(maps_b)))
    else:
        raise TypeError(
            "maps_a and maps_b must be two tensors or two folders, got "
            f"{type(maps_a).__name__} and {type(maps_b).__name__}"
        )
    note = _describe_empty_maps(found, *names)
    if note:
        warn(note)
    return found.iou


class _Agreement(NamedTuple):
    """The IoU of each image (N,), and whether it comes from maps that show nothing.

    Attributes:
        iou: float32.
        flat_a: Whether the first map is the same everywhere.
        flat_b: Whether the second is.
        empty: Whether neither has anything above the threshold.
    """

    iou: Tensor
    flat_a: Tensor
    flat_b: Tensor
    empty: Tensor


def _describe_empty_maps(found: _Agreement, name_a: str, name_b: str) -> str:
    """Return a sentence on maps that show nothing; empty if there are none."""
    count = len(found.iou)
    parts = [
        f"{int(flat.sum())} of {count} maps of {name} are flat, they point nowhere"
        for name, flat in ((name_a, found.flat_a), (name_b, found.flat_b))
        if bool(flat.any())
    ]
    if bool(found.empty.any()):
        empty = int(found.empty.sum())
        parts.append(f"{empty} of {count} images count as 1 with nothing above the threshold")
    return "; ".join(parts)


def _check_threshold(threshold: float) -> None:
    if 0 < threshold < 1:
        raise ValueError(
            f"threshold is on the scale of bytes, 0 to 255, got {threshold!r}; "
            f"for that share of the range give {255 * threshold:g}"
        )
    if not 0 <= threshold < 255:
        raise ValueError(f"threshold must be 0 or in [1, 255), as of bytes, got {threshold!r}")


def _list_shared_images(first: StoredMaps, second: StoredMaps) -> list[str]:
    """Return the images of both folders, which must be the same."""
    for one, other in ((first, second), (second, first)):
        alone = sorted(set(one.ids) - set(other.ids))
        if alone:
            more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
            raise ValueError(
                f"{str(other.folder)!r} has no maps of {', '.join(alone[:5])}{more}, which "
                f"{str(one.folder)!r} has; store maps of the same images in both, by the same names"
            )
    return first.ids


def _compare_image(
    name: str,
    first: StoredMaps,
    second: StoredMaps,
    threshold: float,
    mode: Mode,
    size: tuple[int, int] | None,
) -> _Agreement:
    try:
        return _compare_maps(first.load(name)[None], second.load(name)[None], threshold, mode, size)
    except (TypeError, ValueError) as error:
        raise type(error)(f"image {name!r}: {error}") from error


def _compare_maps(
    a: Tensor, b: Tensor, threshold: float, mode: Mode, size: tuple[int, int] | None
) -> _Agreement:
    if a.ndim != 3 or b.ndim != 3 or len(a) != len(b):
        raise ValueError(
            f"maps must be (N, h, w), of the same images, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if size is None and a.shape != b.shape:
        raise ValueError(
            f"maps must be of the same size, got {tuple(a.shape)} and {tuple(b.shape)}; give the "
            "images' size, such as size=224 or --size 224, to compare both at that"
        )
    values_a, values_b = _scale_to_bytes(a, size), _scale_to_bytes(b, size).to(a.device)
    above_a, above_b = values_a > threshold, values_b > threshold
    axes = (1, 2) if mode == "pixel" else (2,)
    intersection = (above_a & above_b).sum(axes)
    union = (above_a | above_b).sum(axes)
    if mode == "pixel":
        iou = torch.where(union > 0, intersection / union.clamp(min=1), 1)
    else:
        iou = ((intersection + _EPSILON) / (union + _EPSILON)).mean(1)
    empty = ~(above_a | above_b).flatten(1).any(1)
    return _Agreement(iou, is_flat(values_a), is_flat(values_b), empty)


def _scale_to_bytes(maps: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Return maps (N, h, w), resized if a size is given, in [0, 255], as float32."""
    if maps.dtype != torch.uint8 and not maps.is_floating_point():
        raise TypeError(
            f"maps must be floating point or uint8, got {maps.dtype}; give bytes, 0 to 255, as "
            "uint8, and maps of another range as floats"
        )
    several = len(maps) > 1
    values = check_finite(
        maps.detach().float(),
        lambda image: "maps must be finite, got NaN or infinity" + f" for image {image}" * several,
        error=ValueError,
    )
    if size is not None:
        values = resize(values, size)
    return values if maps.dtype == torch.uint8 else normalize(values) * 255
