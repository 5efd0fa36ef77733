"""Local Lipschitz estimate: how fast the map changes with the image, close to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import Explanation, MetricSpec
from xcam.metrics.robustness.neighbors import NeighborMetric

__all__ = ["LocalLipschitz"]


@dataclass(frozen=True, eq=False, repr=False)
class LocalLipschitz(NeighborMetric):
    """Local Lipschitz estimate: how fast the map changes with the image, at most, close to it.

    max over n copies x' of ‖φ(x) − φ(x')‖ / ‖x − x'‖, with φ the map at the image's size, signed,
    and each element of x' − x uniform in [−radius, radius] (Alvarez-Melis and Jaakkola, 2018,
    arXiv:1806.08049). The authors search for the x' that is worst, here the worst of a sample is
    taken, which is a lower bound. Quantus draws 200 copies with σ = 0.1 and divides maps by their
    largest magnitude (in a batch, by that of all its maps): `normalize=True, noise="gaussian",
    radius=0.1, n_samples=200`. Without `normalize` the units of a map are part of the number, so
    that it compares settings of one method, or methods of the same units. Lower is better; a method
    that does not look at the image gets 0.

    Attributes:
        radius: Of the noise, in units of the images; with `noise="gaussian"` its σ.
        n_samples: Copies of an image; the maximum rises with them.
        noise: `"uniform"` or `"gaussian"`.
        seed: Of the noise, which is the same for every image.
        normalize: Whether to divide each map by its largest magnitude.
    """

    normalize: bool = False

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="local_lipschitz",
        title="Local Lipschitz estimate",
        paper="Alvarez-Melis and Jaakkola, 2018, arXiv:1806.08049",
        formula="max of ‖φ(x) − φ(x′)‖ / ‖x − x′‖",
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
        """Return (B,) rates of change; see `Metric.score`."""
        found = self.compare(model, images, explanation)
        distances = found["images"]
        changes = found["scaled_maps" if self.normalize else "maps"]
        return (changes / distances.where(distances > 0, 1)).amax(1)
