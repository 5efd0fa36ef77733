"""Non-sensitivity: are the parts that the map calls irrelevant those that the model ignores?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Count, Explanation, Metric, MetricSpec, NonNegative, Output, Target
from xcam.engine import untouched
from xcam.engine.clean import clean_logits
from xcam.engine.forward import note
from xcam.engine.masking import masked_passes
from xcam.engine.shared import shareable
from xcam.imaging import hash_images
from xcam.imaging.superpixels import divide_into_grid
from xcam.metrics.explaining import read_contrast
from xcam.metrics.inputs import read_maps, read_target
from xcam.metrics.precision import to_result
from xcam.metrics.reading import check_changed, make_score_reader
from xcam.models.normalized import Space, enter_space

__all__ = ["NonSensitivity"]


@dataclass(frozen=True, eq=False, repr=False)
class NonSensitivity(Metric):
    """Non-sensitivity: the share of the image's parts of which map and model disagree on relevance.

    |A₀ △ X₀| / parts: A₀ the parts whose map is zero, X₀ those on which the model does not depend,
    as random values in their place never change the score (Nguyen and Rodríguez Martínez, 2020,
    arXiv:2007.07584, who give the number). Parts are the cells of a grid; one for each pixel is the
    paper's. A map that is nowhere exactly zero, such as a smooth one, has no A₀ and pays for all of
    X₀. In an image whose values are all the same no value that is drawn differs: all its parts
    count as X₀, which is noted. Quantus reads the probability, fills in the image's lowest value
    once, and counts elements below an absolute threshold as zero. In [0, 1], lower is better.

    Attributes:
        n_segments: Cells of the grid, about: rectangles, as square as they get.
        n_samples: How many times a cell gets random values, uniform in the image's range.
        tolerance: What counts as zero: of the map's largest magnitude, and of the score and its
            largest change.
        output: What of the output is the score.
        space: Where values are replaced.
        seed: Of the values, which are drawn for each image.
    """

    n_segments: Count = 196
    n_samples: Count = 5
    tolerance: NonNegative = 1e-5
    output: Output = "logit"
    space: Space = "input"
    seed: int = 0

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="non_sensitivity",
        title="Non-sensitivity",
        paper="Nguyen and Rodríguez Martínez, 2020, arXiv:2007.07584",
        formula="share of parts with either map = 0 or no effect on f, not both",
        higher_is_better=False,
        bounds=(0.0, 1.0),
        question="axioms",
        cost="n_samples × n_segments + 1",
        exceptions={
            "follows_its_seed": "whether the model reads a part shows with nearly any values there"
        },
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) shares; see `Metric.score`."""
        values = read_maps(explanation, images).abs()
        target, contrast = read_target(explanation, images), read_contrast(explanation, images)
        changes = _measure_changes(
            model,
            images,
            target,
            self.n_segments,
            self.n_samples,
            self.seed,
            self.output,
            self.space,
            contrast,
        )
        scale, changes = changes[:, :1], changes[:, 1:]
        ignored = changes <= self.tolerance * (scale + changes.amax(1, keepdim=True))
        low, high = images.flatten(2).aminmax(dim=2)
        for image, is_uniform in enumerate((low == high).all(1).tolist()):
            if is_uniform:
                note(f"image {image}: its values are all the same, none was drawn that differs")
        cells, _ = _divide(images, self.n_segments)
        cells = cells.flatten().expand(len(images), -1)
        highest = values.new_zeros(ignored.shape)
        highest.scatter_reduce_(1, cells, values.flatten(1), "amax")
        irrelevant = highest <= self.tolerance * highest.amax(1, keepdim=True)
        return to_result(ignored != irrelevant, images).mean(1)


def _divide(images: Tensor, n_segments: int) -> tuple[Tensor, int]:
    """Return the cell (H, W) of each pixel, and the number of cells."""
    cells, (rows, columns) = divide_into_grid((images.shape[2], images.shape[3]), n_segments)
    return cells.to(images.device), rows * columns


@shareable
def _measure_changes(
    model: nn.Module,
    images: Tensor,
    target: Target,
    n_segments: int,
    n_samples: int,
    seed: int,
    output: Output,
    space: Space,
    contrast: Target | None,
) -> Tensor:
    """Return the score's magnitude, and its largest change for each cell: (B, 1 + cells)."""
    cells, count = _divide(images, n_segments)
    states = hash_images(images, seed)
    read, label = make_score_reader(target, output, contrast), "non_sensitivity"
    rows = torch.arange(len(images), device=images.device)

    def masks(part: slice) -> tuple[Tensor, Tensor]:
        pairs = torch.arange(part.start, part.stop, device=images.device)
        return pairs // count, cells != (pairs % count)[:, None, None]

    largest = images.new_zeros(len(images), count)
    with untouched(model), torch.no_grad():
        clean = read(clean_logits(model, images, label), rows)[:, None]
        net, shown = enter_space(model, images, space)
        for sample in range(n_samples):
            noise = _draw_like(shown, [state + sample for state in states])
            found = masked_passes(net, shown, len(images) * count, masks, read, noise, label)
            largest = torch.maximum(largest, (found.view(-1, count) - clean).abs())
    return check_changed(torch.cat([clean.abs(), largest], 1))


def _draw_like(images: Tensor, states: list[int]) -> Tensor:
    """Draw images (B, C, H, W) of uniform noise, each channel in the range of the image's."""
    generators = (torch.Generator().manual_seed(state & 0xFFFFFFFF) for state in states)
    noise = torch.stack([torch.rand(images.shape[1:], generator=one) for one in generators])
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.lerp(low, high, noise.to(images))
