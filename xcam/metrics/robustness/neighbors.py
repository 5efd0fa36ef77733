"""Explanations of an image's neighbors: changed copies, explained again by the same method.

Metrics that ask for the same neighbors read them off one measurement, so that within a batch of
`xcam.evaluate` each copy is explained once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from xcam._explain.prepared import prepare
from xcam.core import Count, Explanation, Metric, Positive
from xcam.engine import untouched
from xcam.engine.chunks import collect
from xcam.engine.shared import shareable
from xcam.imaging import draw_noise
from xcam.metrics.explaining import explain_prepared, read_contrast
from xcam.metrics.inputs import read_maps, read_target, require_method
from xcam.metrics.precision import to_finest

__all__ = [
    "LEAST",
    "NeighborMetric",
    "Noise",
    "compare_neighbors",
    "divide_elements",
    "draw_neighbors",
    "explain_copies",
    "scale_by_largest",
]

Noise: TypeAlias = Literal["uniform", "gaussian"]

LEAST = 1e-6
"""What stands for a zero that is divided by, as in Quantus."""


@dataclass(frozen=True, eq=False, repr=False)
class NeighborMetric(Metric):
    """Settings of a metric that explains noisy copies of the image."""

    radius: Positive = 0.2
    n_samples: Count = 50
    noise: Noise = "uniform"
    seed: int = 0

    def compare(
        self, model: nn.Module, images: Tensor, explanation: Explanation
    ) -> dict[str, Tensor]:
        """Return what `compare_neighbors` measures of each image's neighbors, each (B, n, …).

        Raises:
            ValueError: The method that made the maps is not at hand.
        """
        require_method(explanation, self.spec.name)
        found = compare_neighbors(
            model, images, explanation, self.radius, self.n_samples, self.noise, self.seed
        )
        names = ("maps", "scaled_maps", "relative_maps", "images", "relative_images", "logits")
        return dict(zip(names, found, strict=True))


@shareable
def compare_neighbors(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation,
    radius: float,
    n_samples: int,
    noise: Noise,
    seed: int,
) -> tuple[Tensor, ...]:
    """Explain noisy copies of images, and measure how far their maps are from those given.

    Args:
        model: The classifier; left as it was.
        images: (B, C, H, W).
        explanation: Of these images, by a method.
        radius: See `draw_neighbors`, like all that follow.
        n_samples: Copies of an image.
        noise: Its distribution.
        seed: Of the noise.

    Returns:
        Euclidean norms of differences from the copy, each (B, n): of the maps, of the maps over
        their largest magnitudes, of the maps as a share of each pixel's value, of the images, and
        of the images as a share of each element; at last the logits of the copies, (B, n, K).
    """
    count = len(images)
    own = to_finest(read_maps(explanation, images))

    def copy(part: slice) -> tuple[Tensor, Tensor]:
        return draw_neighbors(images, part, radius, noise, seed)

    def measure(rows: Tensor, copies: Tensor, again: Explanation) -> Tensor:
        before, after = own[rows], to_finest(again.maps)
        moved = to_finest(copies) - to_finest(images[rows])
        differences = (
            after - before,
            scale_by_largest(after) - scale_by_largest(before),
            divide_elements(after - before, before),
            moved,
            divide_elements(moved, to_finest(images[rows])),
        )
        norms = torch.stack([vector_norm(one.flatten(1), dim=1) for one in differences], 1)
        # A class was explained, so that the output holds logits.
        return torch.cat([norms, cast(Tensor, again.logits).to(norms)], 1)

    found = explain_copies(model, images, explanation, n_samples, copy, measure)
    found = found.view(n_samples, count, -1).transpose(0, 1)
    return (*found[..., :5].unbind(-1), found[..., 5:])


def draw_neighbors(
    images: Tensor, part: slice, radius: float, noise: Noise, seed: int
) -> tuple[Tensor, Tensor]:
    """Return some of the noisy copies of images, (R, C, H, W), and the image of each, (R,).

    Args:
        images: (B, C, H, W).
        part: Which copies; see `draw_noise`.
        radius: Of the noise of each element: uniform in [−radius, radius], or normal with this σ.
        noise: Its distribution.
        seed: Of the noise.
    """
    rows = torch.arange(part.start, part.stop, device=images.device) % len(images)
    return rows, images[rows] + radius * draw_noise(images, part, seed, noise == "uniform")


def explain_copies(
    model: nn.Module,
    images: Tensor,
    explanation: Explanation,
    n_samples: int,
    copy: Callable[[slice], tuple[Tensor, Tensor]],
    measure: Callable[[Tensor, Tensor, Explanation], Tensor],
) -> Tensor:
    """Explain changed copies of images for the explained class, a chunk at a time.

    Args:
        model: The classifier; left as it was.
        images: (B, C, H, W).
        explanation: Of these images, by a method.
        n_samples: Copies of an image.
        copy: Makes a slice of the copies: the image of each, (R,), and the copies (R, C, H, W).
        measure: From both and their explanation to what is kept of each, (R, …).

    Returns:
        (n · B, …).
    """
    method = require_method(explanation, "a metric of robustness")
    target = read_target(explanation, images)
    contrast = read_contrast(explanation, images)
    with untouched(model):
        prepared = prepare(model, images, method)

        def step(part: slice) -> Tensor:
            rows, copies = copy(part)
            other = None if contrast is None else contrast.select(rows)
            again = explain_prepared(prepared, copies, target.select(rows), other)
            return measure(rows, copies, again)

        return collect(n_samples * len(images), step, images, "changed copies")


def divide_elements(values: Tensor, by: Tensor) -> Tensor:
    """Divide element by element, by `LEAST` where that is zero."""
    return values / by.where(by != 0, LEAST)


def scale_by_largest(maps: Tensor) -> Tensor:
    """Divide each map of (B, H, W) by its largest magnitude; maps of zeros stay as they are."""
    largest = maps.abs().amax((1, 2), keepdim=True)
    return maps / largest.where(largest > 0, 1)
