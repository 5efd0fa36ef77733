"""The Model Parameter Randomization Test: the map beside those of the model with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from xcam.core import Count, Explanation, Metric, MetricSpec, NonNegative, Range, Target
from xcam.engine.chunks import chunks
from xcam.engine.shared import keep_nothing, shareable
from xcam.imaging import draw_noise, is_flat
from xcam.metrics.explaining import explain_prepared, read_contrast
from xcam.metrics.inputs import read_maps, read_target, require_method
from xcam.metrics.precision import to_finest
from xcam.metrics.randomization.layers import RandomizedModel, explain_randomized
from xcam.metrics.similarity import Similarity, compare_maps

__all__ = ["MPRT", "EfficientMPRT", "SmoothMPRT", "measure_histogram_entropy"]

Order: TypeAlias = Literal["top_down", "bottom_up", "independent"]

_REVISITED = "Hedström et al., 2023, arXiv:2401.06465"


@dataclass(frozen=True)
class _LayerByLayer(Metric):
    """A similarity for each of the steps in which the layers of the model are randomized."""

    order: Order = "top_down"
    n_steps: Count | None = 10
    similarity: Similarity = "spearman"
    absolute: bool = True
    seed: Annotated[int, Range(least=0)] = 0

    def finish(self, mean: Tensor) -> Tensor:
        """Return the mean over the steps."""
        return mean.mean(-1)

    def curve(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the similarity after each step, over the share of steps that are done."""
        count = mean.shape[-1]
        return torch.arange(1, count + 1, device=mean.device) / count, mean

    @property
    def curve_axes(self) -> tuple[str, str]:
        """Return what the abscissa and the ordinate of the curve are."""
        layers = "layer" if self.order == "independent" else "layers"
        return f"{layers} randomized, {self.order.replace('_', '-')}", "similarity of the maps"

    def _list_steps(self, layers: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """Yield which layers are random in each step, from the image to the scores."""
        count = min(self.n_steps or len(layers), len(layers))
        ends = [round(step * len(layers) / count) for step in range(count + 1)]
        if self.order == "top_down":
            yield from (layers[first:] for first in ends[-2::-1])
        elif self.order == "bottom_up":
            yield from (layers[:last] for last in ends[1:])
        else:
            pairs = zip(ends[-2::-1], ends[:0:-1], strict=True)
            yield from (layers[first:last] for first, last in pairs)


@dataclass(frozen=True)
class MPRT(_LayerByLayer):
    """Model Parameter Randomization Test: does the map change when the weights become random?

    The mean over l of s(e(f), e(f_l)), with e the method that made the maps, for the class that was
    explained, and f_l the model with random weights in the first l groups of layers, from the
    scores on (Adebayo et al., 2018, arXiv:1810.03292). In [−1, 1], lower is better: a method that
    gives 1 does not explain the model. A layer is made anew as torch makes it, by its
    `reset_parameters`, each from a seed of its own, and batch norms with it; weights that no such
    function writes are permuted. The curve has the similarity after each step; the last point
    of a cascade is that of a model which has learned nothing.

    What is compared are `Explanation.maps`, one value a pixel, of any method. Quantus randomizes
    one module at a time (`n_steps=None`), in the order in which they are defined and all from one
    seed, compares the channels, too, and gives a similarity for each. SSIM is that of maps divided
    by their largest magnitude, in windows of 7 pixels.

    Attributes:
        order: `"top_down"` from the scores to the image or `"bottom_up"`, each step on top of those
            before; or `"independent"`, a group of layers at a time, from the scores to the image.
        n_steps: In how many steps, with as many layers in each; a layer a step if there are fewer
            layers, or with None.
        similarity: `"spearman"`, the rank correlation over pixels, or `"ssim"`.
        absolute: Whether magnitudes are compared.
        seed: Of the weights.
    """

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="mprt",
        title="MPRT",
        paper="Adebayo et al., 2018, arXiv:1810.03292",
        formula="mean over l of s(e(f), e(f_l)), f_l with l groups of layers random",
        higher_is_better=False,
        bounds=(-1.0, 1.0),
        question="sanity",
        cost="n_steps explanations",
        aliases=("parameter_randomization",),
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B, steps) similarities; see `Metric.score`.

        Raises:
            ValueError: The model has no weights, or the method is not at hand.
            ModelOutputError: The model cannot be copied.
        """
        maps, target = read_maps(explanation, images), read_target(explanation, images)
        method, contrast = (
            require_method(explanation, self.spec.name),
            read_contrast(explanation, images),
        )
        randomized = RandomizedModel(model, images, method, self.seed)
        rows = [
            compare_maps(
                maps,
                explain_randomized(randomized, names, images, target, contrast),
                self.similarity,
                self.absolute,
            )
            for names in self._list_steps(randomized.layers)
        ]
        return torch.stack(rows, 1)


@dataclass(frozen=True)
class SmoothMPRT(_LayerByLayer):
    """Smooth MPRT: the test on maps that are averaged over noisy copies of the image.

    As `MPRT`, with e(x) replaced by 1/n Σ_k e(x + ε_k), ε_k ~ N(0, (noise · (max x − min x))²), for
    the model as it is and with random weights, so that noise of the gradients does not pass for
    a change of the map (Hedström et al., 2023, arXiv:2401.06465). In [−1, 1], lower is better. The
    noise of a copy is the same for all images and all weights; of `Explanation.maps` only the
    method is read. Quantus leaves the last of the copies without noise.

    Attributes:
        order: As in `MPRT`, like all up to the seed; published: `"bottom_up"`, since a cascade from
            the scores keeps what the first layers tell of the image until its last step.
        n_steps: In how many steps the layers are randomized.
        similarity: `"spearman"` or `"ssim"`.
        absolute: Whether magnitudes, of the averages, are compared.
        seed: Of the weights, and of the noise.
        n_samples: Noisy copies; memory does not grow with them.
        noise: σ as a fraction of each image's range.
    """

    order: Order = "bottom_up"
    n_samples: Count = 50
    noise: NonNegative = 0.1

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="smooth_mprt",
        title="Smooth MPRT",
        paper=_REVISITED,
        formula="MPRT of maps averaged over noisy copies",
        higher_is_better=False,
        bounds=(-1.0, 1.0),
        question="sanity",
        cost="n_samples × (n_steps + 1) explanations",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B, steps) similarities; see `MPRT.score`."""
        read_maps(explanation, images)
        target, contrast = read_target(explanation, images), read_contrast(explanation, images)
        randomized = RandomizedModel(
            model, images, require_method(explanation, self.spec.name), self.seed
        )
        first, *rest = (
            _average_maps(randomized, names, target, contrast, self.n_samples, self.noise)
            for names in ((), *self._list_steps(randomized.layers))
        )
        rows = [compare_maps(first, maps, self.similarity, self.absolute) for maps in rest]
        return torch.stack(rows, 1)


@shareable
def _average_maps(
    randomized: RandomizedModel,
    names: tuple[str, ...],
    target: Target,
    contrast: Target | None,
    n_samples: int,
    noise: float,
) -> Tensor:
    """Return the mean maps (B, H, W) over noisy copies, by a model with random layers."""
    images = randomized.images
    prepared = randomized.prepare(names)
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    sigma, count = noise * (high - low), len(images)
    # In the same precision on every device: ranks of nearly equal pixels turn on the last bits.
    total = torch.zeros_like(images[:, 0], dtype=torch.float32)

    def step(part: slice) -> tuple[Tensor, Tensor]:
        rows = torch.arange(part.start, part.stop, device=images.device) % count
        other = None if contrast is None else contrast.select(rows)
        copies = images[rows] + sigma[rows] * draw_noise(images, part, randomized.seed)
        return rows, explain_prepared(prepared, copies, target.select(rows), other).maps

    with keep_nothing():
        for _, (rows, maps) in chunks(n_samples * count, step, images, "noisy copies"):
            total.index_add_(0, rows, maps.to(total))
    return total / n_samples


@dataclass(frozen=True)
class EfficientMPRT(Metric):
    """Efficient MPRT: how much more complex the map is if all weights of the model are random.

    (H(e(f*)) − H(e(f))) / H(e(f)), with e the method that made the maps, f* the model with random
    weights in all its layers, and H the entropy of a histogram of the map's values, in bins of
    equal width from its lowest to its highest (Hedström et al., 2023, arXiv:2401.06465). In
    [−1, ∞), higher is better: a method that gives 0 does not explain the model. A map whose values
    share one bin has H = 0; the difference is then divided by 1. What is read are signed
    `Explanation.maps`, one value a pixel. Weights are made as in `MPRT`, and for the same seed one
    explanation serves both. Quantus, in its defaults the same, bins the channels, too.

    Attributes:
        n_bins: Bins of the histograms.
        seed: Of the weights.
    """

    n_bins: Count = 100
    seed: Annotated[int, Range(least=0)] = 0

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="efficient_mprt",
        title="Efficient MPRT",
        paper=_REVISITED,
        formula="mean of (H(e(f*)) − H(e(f))) / H(e(f)), f* with random weights",
        higher_is_better=True,
        bounds=(-1.0, float("inf")),
        question="sanity",
        cost="1 explanation",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) relative rises; see `MPRT.score`."""
        maps, target = read_maps(explanation, images), read_target(explanation, images)
        method, contrast = (
            require_method(explanation, self.spec.name),
            read_contrast(explanation, images),
        )
        randomized = RandomizedModel(model, images, method, self.seed)
        again = explain_randomized(randomized, randomized.layers, images, target, contrast)
        before, after = (measure_histogram_entropy(each, self.n_bins) for each in (maps, again))
        return ((after - before) / before.where(before > 0, 1)).float()


def measure_histogram_entropy(maps: Tensor, n_bins: int) -> Tensor:
    """Return the entropies (B,), in nats, of histograms of the values of maps (B, H, W).

    A map that is flat up to rounding has one bin, entropy 0.
    """
    values = to_finest(maps.flatten(1))
    low, high = values.aminmax(dim=1, keepdim=True)
    span = (high - low).where(high > low, 1)
    bins = ((values - low) / span * n_bins).long().clamp(max=n_bins - 1)
    bins = bins.masked_fill(is_flat(maps)[:, None], 0)
    counts = values.new_zeros(len(values), n_bins).scatter_add_(1, bins, torch.ones_like(values))
    entropies: Tensor = torch.special.entr(counts / values.shape[1]).sum(1)
    return entropies
