"""Relative stability: the map's relative change, as a multiple of the input's or the model's."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from xcam.core import Explanation, MetricSpec, has_independent_classes
from xcam.engine import capture, find_module, untouched, unwrap
from xcam.engine.chunks import collect
from xcam.engine.clean import clean_logits
from xcam.engine.layers import find_default_layer
from xcam.engine.shared import shareable
from xcam.errors import LayerError
from xcam.metrics.inputs import read_target
from xcam.metrics.precision import to_finest
from xcam.metrics.reading import is_among_top
from xcam.metrics.robustness.neighbors import (
    LEAST,
    NeighborMetric,
    Noise,
    divide_elements,
    draw_neighbors,
)

__all__ = [
    "RelativeInputStability",
    "RelativeOutputStability",
    "RelativeRepresentationStability",
]

_PAPER = "Agarwal et al., 2022, arXiv:2203.06877"


@dataclass(frozen=True, eq=False, repr=False)
class _RelativeStability(NeighborMetric):
    """The worst ratio over copies that the model decides about as about the image."""

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return the worst ratio of each image, and 1 if it has one or else 0, (B, 2).

        See `Metric.score`.
        """
        found = self.compare(model, images, explanation)
        with untouched(model):
            clean = clean_logits(model, images, self.spec.name)
            change = self._measure_change(model, images, clean, found)
        classes = read_target(explanation, images).classes
        kept = _is_same_decision(clean, found["logits"], classes)
        ratios = found["relative_maps"] / change.clamp(min=LEAST)
        worst = ratios.where(kept, 0).amax(1)
        return torch.stack([worst, kept.any(1).to(worst)], 1)

    def finish(self, mean: Tensor) -> Tensor:
        """Return the mean over images that have a ratio; NaN where none has."""
        return mean[..., 0] / mean[..., 1]

    @abstractmethod
    def _measure_change(
        self, model: nn.Module, images: Tensor, clean: Tensor, found: dict[str, Tensor]
    ) -> Tensor:
        """Return (B, n), how far each copy is from its image."""


@dataclass(frozen=True, eq=False, repr=False)
class RelativeInputStability(_RelativeStability):
    """Relative input stability: the map's relative change by that of the image, at most.

    max over n copies x' that the model decides about as about x, of ‖(e(x) − e(x')) / e(x)‖ /
    max(‖(x − x') / x‖, ε), with e the map at the image's size, signed, divisions element by element
    and ε = 1e-6, which also stands for zeros that are divided by (Agarwal et al., 2022,
    arXiv:2203.06877). Each element of x' − x is uniform in [−radius, radius]. An image that the
    model decides about otherwise in every copy has no value, and does not count. Quantus adds
    positive noise only, of 0.02 to 0.2, 200 times, and gives no value as soon as one copy is
    decided otherwise. Lower is better; the number is ruled by pixels where the map is nearly 0, so
    that maps cut at 0 get very large ones.

    Attributes:
        radius: Of the noise, in units of the images; with `noise="gaussian"` its σ.
        n_samples: Copies of an image; the maximum rises with them.
        noise: `"uniform"` or `"gaussian"`.
        seed: Of the noise, which is the same for every image.
    """

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="relative_input_stability",
        title="Relative input stability",
        paper=_PAPER,
        formula="max of ‖Δe / e‖ / ‖Δx / x‖",
        higher_is_better=False,
        bounds=(0.0, math.inf),
        question="robustness",
        cost="1 + n_samples explanations",
        aliases=("ris",),
    )

    def _measure_change(
        self, model: nn.Module, images: Tensor, clean: Tensor, found: dict[str, Tensor]
    ) -> Tensor:
        return found["relative_images"]


@dataclass(frozen=True, eq=False, repr=False)
class RelativeOutputStability(_RelativeStability):
    """Relative output stability: the map's relative change by the change of the logits, at most.

    max over n copies x' that the model decides about as about x, of ‖(e(x) − e(x')) / e(x)‖ /
    max(‖h(x) − h(x')‖, ε), with h the logits of all classes (Agarwal et al., 2022,
    arXiv:2203.06877); all else as in `RelativeInputStability`. Lower is better.

    Attributes:
        radius: Of the noise, in units of the images; with `noise="gaussian"` its σ.
        n_samples: Copies of an image; the maximum rises with them.
        noise: `"uniform"` or `"gaussian"`.
        seed: Of the noise, which is the same for every image.
    """

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="relative_output_stability",
        title="Relative output stability",
        paper=_PAPER,
        formula="max of ‖Δe / e‖ / ‖Δ logits‖",
        higher_is_better=False,
        bounds=(0.0, math.inf),
        question="robustness",
        cost="1 + n_samples explanations",
        aliases=("ros",),
    )

    def _measure_change(
        self, model: nn.Module, images: Tensor, clean: Tensor, found: dict[str, Tensor]
    ) -> Tensor:
        moved: Tensor = vector_norm(found["logits"] - to_finest(clean)[:, None], dim=2)
        return moved


@dataclass(frozen=True, eq=False, repr=False)
class RelativeRepresentationStability(_RelativeStability):
    """Relative representation stability: the map's relative change by that of a layer, at most.

    max over n copies x' that the model decides about as about x, of ‖(e(x) − e(x')) / e(x)‖ /
    max(‖(L(x) − L(x')) / L(x)‖, ε), with L the output of a layer (Agarwal et al., 2022,
    arXiv:2203.06877); all else as in `RelativeInputStability`. The authors leave the layer open;
    Quantus takes all of them at once unless it is told one. Lower is better.

    Attributes:
        radius: Of the noise, in units of the images; with `noise="gaussian"` its σ.
        n_samples: Copies of an image; the maximum rises with them.
        noise: `"uniform"` or `"gaussian"`.
        seed: Of the noise, which is the same for every image.
        layer: The name of the layer; None for the one that CAMs read by default.
    """

    layer: str | None = None

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="relative_representation_stability",
        title="Relative representation stability",
        paper=_PAPER,
        formula="max of ‖Δe / e‖ / ‖Δ layer / layer‖",
        higher_is_better=False,
        bounds=(0.0, math.inf),
        question="robustness",
        cost="n_samples + 2 + n_samples explanations",
        aliases=("rrs",),
    )

    def _measure_change(
        self, model: nn.Module, images: Tensor, clean: Tensor, found: dict[str, Tensor]
    ) -> Tensor:
        if self.layer is None:
            try:
                layer = find_default_layer(model, images).name
            except LayerError as error:
                raise LayerError(
                    f"the model ({type(unwrap(model)).__name__}) has no layer that CAMs read by "
                    f"default; give {self.spec.name} one of its layers by name, layer='…'"
                ) from error
        else:
            layer, _ = find_module(model, self.layer)
        return _measure_representation(
            model, images, layer, self.radius, self.n_samples, self.noise, self.seed
        )


@shareable
def _measure_representation(
    model: nn.Module,
    images: Tensor,
    layer: str,
    radius: float,
    n_samples: int,
    noise: Noise,
    seed: int,
) -> Tensor:
    """Return the relative change (B, n) of a layer's output; see `draw_neighbors`."""
    count = len(images)
    with capture(model, layer, grad=False) as read:

        def represent(some: Tensor) -> Tensor:
            read(some)
            return to_finest(read.activation).flatten(1)

        clean = collect(count, lambda part: represent(images[part]), images, layer)

        def measure(part: slice) -> Tensor:
            rows, copies = draw_neighbors(images, part, radius, noise, seed)
            change = represent(copies) - clean[rows]
            moved: Tensor = vector_norm(divide_elements(change, clean[rows]), dim=1)
            return moved

        found = collect(n_samples * count, measure, images, layer)
    return found.view(n_samples, count).T


def _is_same_decision(clean: Tensor, logits: Tensor, classes: Tensor | None) -> Tensor:
    """Return whether copies (B, n, K) of images (B, K) are decided alike, (B, n) bool.

    By the predicted class; by the sign of the explained one's logit where classes are independent,
    or there is a single one.
    """
    if classes is not None and (clean.shape[1] == 1 or has_independent_classes()):
        own = classes[:, None]
        before = clean.gather(1, own) > 0
        after = logits.gather(2, own[:, None].expand(-1, logits.shape[1], -1))[..., 0] > 0
        return after == before
    predicted = clean.argmax(1)[:, None].expand(-1, logits.shape[1])
    return is_among_top(logits.flatten(0, 1), predicted.reshape(-1)).view(logits.shape[:2])
