"""Pure functions of images and maps as tensors: resize, blur, normalize, fill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Fill",
    "blur",
    "check_fill",
    "fit",
    "hash_images",
    "is_flat",
    "make_fill",
    "normalize",
    "normalize_signed",
    "parse_size",
    "resize",
    "unfit",
]

Fill: TypeAlias = Literal["zero", "mean", "blur"] | Tensor


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (B, h, w) to (B, H, W) bilinearly, with pixel centers aligned, not corners."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def normalize(maps: Tensor) -> Tensor:
    """Scale each map linearly into [0, 1] over its last two axes; a flat map becomes zeros."""
    lowest, highest = maps.flatten(-2).aminmax(dim=-1)
    # Divided by infinity where the map is flat, since its differences are rounding errors.
    span = (highest - lowest).masked_fill(_flat(lowest, highest), torch.inf)
    return (maps - lowest[..., None, None]) / span[..., None, None]


def normalize_signed(maps: Tensor) -> Tensor:
    """Scale each map by its largest magnitude into [−1, 1]; a flat map becomes zeros."""
    lowest, highest = maps.flatten(-2).aminmax(dim=-1)
    largest = torch.maximum(-lowest, highest).masked_fill(_flat(lowest, highest), torch.inf)
    return maps / largest[..., None, None]


def is_flat(maps: Tensor) -> Tensor:
    """Return whether each map of (…, H, W) is constant, up to the rounding of a resize."""
    return _flat(*maps.flatten(-2).aminmax(dim=-1))


def _flat(lowest: Tensor, highest: Tensor) -> Tensor:
    largest = torch.maximum(lowest.abs(), highest.abs())
    return highest - lowest <= 8 * torch.finfo(lowest.dtype).eps * largest


def hash_images(images: Tensor, seed: int) -> list[int]:
    """Hash images (B, C, H, W) to 32 bits each: the high ones of Σ wᵢxᵢ modulo 2⁶⁴.

    x are an image's float32 bits, w random numbers from the seed. Integers, so that every device
    finds the same, in whatever order it adds.
    """
    bits = images.detach().float().flatten(1).contiguous().view(torch.int32)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(-(2**63), 2**63 - 1, (bits.shape[1] + 1,), generator=generator)
    first, weights = drawn.to(images.device).tensor_split([1])
    states = torch.stack([first + (row * weights).sum() for row in bits]) >> 32 & 0xFFFFFFFF
    found: list[int] = states.flatten().tolist()
    return found


def blur(images: Tensor, sigma: float) -> Tensor:
    """Blur images (B, C, H, W) by a Gaussian of σ pixels, truncated at 4σ, edges replicated."""
    if sigma <= 0:
        return images
    radius = max(1, round(4 * sigma))
    steps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = (-0.5 * (steps / sigma) ** 2).exp()
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    channels = images.shape[1]
    rows = F.pad(images, (radius, radius, 0, 0), mode="replicate")
    rows = F.conv2d(rows, kernel, groups=channels)
    columns = F.pad(rows, (0, 0, radius, radius), mode="replicate")
    return F.conv2d(columns, kernel.transpose(-1, -2), groups=channels)


def make_fill(images: Tensor, fill: Fill) -> Tensor:
    """Make the values that replace removed pixels of images.

    Args:
        images: (B, C, H, W).
        fill: `"zero"` (black for a model that takes [0, 1] pixels, the data set's mean color for
            one that takes normalized ones), `"mean"` for each image's own mean color, `"blur"` for
            the image under a Gaussian of σ = max(H, W)/20 (11 pixels at 224), or a tensor for all
            images: a scalar, a color (C,), or an image (C, H, W), with or without a first axis of
            1; axes of size 1 are broadcast.

    Returns:
        (B, C, H, W) of the images' dtype, on their device. It may be an expanded view, which must
        not be written to.

    Raises:
        TypeError: `fill` is neither a word nor a tensor.
        ValueError: An unknown word, or a tensor whose shape does not fit the images or that is not
            finite.
    """
    check_fill(fill)
    if isinstance(fill, Tensor):
        return _fill_tensor(images, fill)
    if fill == "zero":
        return images.new_zeros(()).expand_as(images)
    if fill == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    return blur(images, max(images.shape[2:]) / 20)


def check_fill(fill: object) -> None:
    """Refuse, with a `TypeError` or `ValueError`, a fill that is neither a word nor a tensor."""
    if not isinstance(fill, str | Tensor):
        raise TypeError(f"fill must be 'zero', 'mean', 'blur' or a tensor, got {fill!r}")
    if isinstance(fill, str) and fill not in ("zero", "mean", "blur"):
        raise ValueError(f"fill must be 'zero', 'mean', 'blur' or a tensor, got {fill!r}")


def _fill_tensor(images: Tensor, fill: Tensor) -> Tensor:
    shape = fill[:, None, None].shape if fill.ndim == 1 else fill.shape
    one = shape[1:] if len(shape) == 4 and shape[0] == 1 else shape
    wanted = images.shape[1:]
    fits = len(one) in (0, 3) and all(n in (1, w) for n, w in zip(one, wanted, strict=False))
    if not fits:
        raise ValueError(
            f"a fill tensor must be a scalar, ({wanted[0]},) or {tuple(wanted)}, the same for all "
            f"images, got {tuple(fill.shape)}"
        )
    if not bool(fill.isfinite().all()):
        raise ValueError("a fill tensor must be finite, got one that holds NaN or infinity")
    return fill.to(images).reshape(one).expand_as(images)


def parse_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return a size as (H, W); one number means a square.

    Raises:
        ValueError: It is neither one nor two positive ints.
    """
    sides = (size, size) if isinstance(size, int) else size
    positive = isinstance(sides, Sequence) and all(type(n) is int and n > 0 for n in sides)
    if not positive or len(sides) != 2:
        raise ValueError(f"size must be a positive int, or two, (H, W), got {size!r}")
    return sides[0], sides[1]


def fit(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Resize an image (3, H, W) to cover `size`, and crop its center."""
    from torchvision.transforms.v2 import functional as transforms

    height, width = parse_size(size)
    covering = [*_find_covering((image.shape[-2], image.shape[-1]), (height, width))]
    bicubic = transforms.InterpolationMode.BICUBIC
    larger = transforms.resize(image, covering, interpolation=bicubic, antialias=True)
    cropped: Tensor = transforms.center_crop(larger, [height, width]).clamp(0, 1)
    return cropped


def _find_covering(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest size of the same shape as `size` that covers the target."""
    scale = max(target[0] / size[0], target[1] / size[1])
    return max(target[0], round(size[0] * scale)), max(target[1], round(size[1] * scale))


def unfit(maps: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Put maps of images that `fit` made back on the image before it, of another size.

    Args:
        maps: (B, h, w), of images that cover the size (h, w), their center cropped.
        size: (H, W) of the image before.

    Returns:
        (B, H, W), zero beyond the crop; and whether each place (H, W) lies within the crop.
    """
    cropped = (maps.shape[-2], maps.shape[-1])
    covering = _find_covering(size, cropped)
    # What center_crop cuts off at the two ends of each axis.
    spare = [whole - part for whole, part in zip(covering, cropped, strict=True)]
    cuts = [(round(rest / 2), rest - round(rest / 2)) for rest in spare]
    (top, bottom), (left, right) = cuts
    padded = F.pad(maps[:, None], (left, right, top, bottom), mode="replicate")[:, 0]
    seen = torch.zeros(size, dtype=torch.bool, device=maps.device)
    rows, columns = (
        slice(round(first * full / whole), round((whole - last) * full / whole))
        for (first, last), full, whole in zip(cuts, size, covering, strict=True)
    )
    seen[rows, columns] = True
    return resize(padded, size) * seen, seen
