"""Settings that several bridged methods share, and what is made from them for an image."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from xcam.core import Count, Output, Positive, Reduce
from xcam.engine import Layer
from xcam.imaging import Fill, make_fill
from xcam.imaging.superpixels import divide_into_grid, segment_by_slic
from xcam.methods.bridges.rows import Setting

__all__ = [
    "AT",
    "BASELINE",
    "BASELINES",
    "LAYER",
    "N_SAMPLES",
    "N_STEPS",
    "OUTPUT",
    "REDUCE",
    "SEED",
    "SEGMENTS",
    "make_baselines",
    "make_segments",
]

Baselines: TypeAlias = tuple[Literal["zero", "mean", "blur"], ...] | Tensor

OUTPUT = Setting("output", Output, "logit", "What of the output is explained.")
LAYER = Setting("layer", Layer | None, None, "Name or module; None for the model's default layer.")
AT = Setting(
    "at",
    Layer | None,
    None,
    "A layer, by name or module, whose positions are explained instead of pixels, its channels "
    "summed; None for the image.",
)
REDUCE = Setting("reduce", Reduce, "sum", "How the channels become one.")
SEED = Setting("seed", int, 0, "Of the random numbers, which are the same for each image.")
N_SAMPLES = Setting("n_samples", Count, 200, "How many changed copies of an image are scored.")
N_STEPS = Setting("n_steps", Count, 50, "Points on the path.")
BASELINE = Setting(
    "baseline",
    Fill,
    "mean",
    'What shows where something is removed: `"zero"`, `"mean"` or `"blur"` of the image, or a '
    "tensor that broadcasts to the images.",
)
BASELINES = Setting(
    "baselines",
    Baselines,
    ("zero", "mean", "blur"),
    'The distribution that an image is compared with: some of `"zero"`, `"mean"` and `"blur"` of '
    "the image itself, or images (N, C, H, W), such as a few of the training set.",
)
SEGMENTS = (
    Setting("n_segments", Count, 50, "How many regions an image is divided into, about."),
    Setting(
        "segments",
        Literal["slic", "grid"],
        "slic",
        'What the regions are: `"slic"` superpixels, or a `"grid"` of rectangles.',
    ),
    Setting(
        "compactness",
        Positive,
        0.1,
        "Of the superpixels: the weight of place against color; the higher, the squarer.",
    ),
)


def make_segments(method: Any, image: Tensor) -> Tensor:  # noqa: ANN401 - of a generated class
    """Return the regions of an image (1, C, H, W), labels from 0 without gaps, (1, 1, H, W)."""
    if method.segments == "slic":
        labels = segment_by_slic(image.detach(), method.n_segments, method.compactness)
    else:
        size = (image.shape[2], image.shape[3])
        labels = divide_into_grid(size, method.n_segments)[0][None].to(image.device)
    numbers: Tensor = torch.unique(labels, return_inverse=True)[1]
    return numbers[:, None]


def make_baselines(image: Tensor, baselines: Baselines) -> Tensor:
    """Return the baselines (N, C, H, W) of an image (1, C, H, W).

    Raises:
        ValueError: There are none, or images of another shape, or that are not finite.
    """
    if not isinstance(baselines, Tensor):
        if not baselines:
            raise ValueError("baselines must hold one at least, such as ('zero',), got ()")
        return torch.cat([make_fill(image.detach(), each) for each in baselines])
    if baselines.ndim != 4 or not len(baselines) or baselines.shape[1:] != image.shape[1:]:
        raise ValueError(
            f"baselines must be images (N, {', '.join(map(str, image.shape[1:]))}), got "
            f"{tuple(baselines.shape)}"
        )
    if not bool(baselines.isfinite().all()):
        raise ValueError("baselines must be finite, got images that hold NaN or infinity")
    return baselines.detach().to(image)
