"""Shape of a map, whatever the model: its sparseness and its entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Explanation, Metric, MetricSpec
from xcam.metrics.inputs import read_maps

__all__ = ["Entropy", "Sparseness"]


@dataclass(frozen=True)
class Sparseness(Metric):
    """Sparseness: the Gini index of |map|, from 0 for equal pixels to 1 − 1/n for a single one.

    G = Σ_i (2i − n − 1) a_i / (n Σ a), with the n values a = |map| in ascending order (Chalasani
    et al., 2020, arXiv:1810.06583). A map of zeros gives 0.
    """

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="sparseness",
        title="Sparseness",
        aliases=("gini",),
        paper="Chalasani et al., 2020, arXiv:1810.06583",
        formula="Gini index of |map|",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        question="shape",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) indices; see `Metric.score`."""
        values = read_maps(explanation, images).abs().flatten(1).sort(1).values
        count = values.shape[1]
        ranks = torch.arange(1, count + 1, device=values.device, dtype=values.dtype)
        total = values.sum(1)
        spread = (values * (2 * ranks - count - 1)).sum(1)
        return spread / (count * total).where(total > 0, 1)


@dataclass(frozen=True)
class Entropy(Metric):
    """Entropy of |map| as a distribution over pixels, in nats.

    H = −Σ q ln q with q = |map| / Σ|map|: 0 if one pixel has all the mass, ln n if all have the
    same (Bhatt et al., 2020, arXiv:2005.00631, who call it complexity). A map of zeros says
    nothing of any pixel and gives ln n.
    """

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="entropy",
        title="Entropy",
        paper="Bhatt et al., 2020, arXiv:2005.00631",
        formula="−Σ q ln q, q = |map| / Σ|map|",
        higher_is_better=False,
        bounds=(0.0, float("inf")),
        question="shape",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) entropies; see `Metric.score`."""
        values = read_maps(explanation, images).abs().flatten(1)
        total = values.sum(1, keepdim=True)
        shares = torch.where(total > 0, values, 1) / total.where(total > 0, values.shape[1])
        entropies: Tensor = torch.special.entr(shares).sum(1)
        return entropies
