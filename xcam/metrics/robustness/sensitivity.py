"""Max-Sensitivity: how far the map moves when noise is added to the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.linalg import vector_norm

from xcam.core import Explanation, MetricSpec
from xcam.metrics.inputs import read_maps
from xcam.metrics.precision import to_finest
from xcam.metrics.robustness.neighbors import NeighborMetric

__all__ = ["MaxSensitivity"]


@dataclass(frozen=True, eq=False, repr=False)
class MaxSensitivity(NeighborMetric):
    """Max-Sensitivity: how far the map moves, at most, when noise is added to the image.

    max over n copies x' of ‖φ(x') − φ(x)‖ / ‖φ(x)‖, with φ the map at the image's size, signed, and
    each element of x' − x uniform in [−radius, radius] (Yeh et al., 2019, arXiv:1901.09392).
    Their definition has no denominator, which is `relative=False`; their code has it, as captum and
    Quantus do, since without it maps of different units cannot be compared. Captum draws 10 copies
    with radius=0.02, Quantus 200. Norms are taken over the pixels of `explanation.maps`; of the
    channels of a pixel map, only what the method's `reduce` leaves is compared. Where a map is 0
    everywhere, the denominator is 1. Lower is better; a method that does not look at the image gets
    0.

    Attributes:
        radius: Of the noise, in units of the images; with `noise="gaussian"` its σ.
        n_samples: Copies of an image; the maximum rises with them.
        noise: `"uniform"` or `"gaussian"`.
        seed: Of the noise, which is the same for every image.
        relative: Whether to divide by the norm of the map.
    """

    relative: bool = True

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="max_sensitivity",
        title="Max-Sensitivity",
        paper="Yeh et al., 2019, arXiv:1901.09392",
        formula="max of ‖φ(x′) − φ(x)‖ / ‖φ(x)‖",
        higher_is_better=False,
        bounds=(0.0, math.inf),
        question="robustness",
        cost="n_samples explanations",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) sensitivities; see `Metric.score`."""
        farthest = self.compare(model, images, explanation)["maps"].amax(1)
        if not self.relative:
            return farthest
        size: Tensor = vector_norm(to_finest(read_maps(explanation, images)).flatten(1), dim=1)
        return farthest / size.where(size > 0, 1)
