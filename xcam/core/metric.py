"""`Metric`: a per-image statistic, then one number from the mean of those statistics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from xcam.core.explanation import Explanation

__all__ = ["Metric", "MetricSpec"]


@dataclass(frozen=True)
class MetricSpec:
    """What cannot be derived about a metric.

    Attributes:
        name: The name in the registry.
        title: The name in print.
        paper: The source.
        higher_is_better: The direction.
        bounds: The range of the result.
        truth: What it needs beside the maps.
    """

    name: str
    title: str
    paper: str
    higher_is_better: bool
    bounds: tuple[float, float]
    truth: Literal["none", "boxes", "masks"] = "none"


class Metric(ABC):
    """A way to score maps: a frozen dataclass of settings, like `Method`."""

    spec: ClassVar[MetricSpec]

    @abstractmethod
    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """The statistic of each image.

        Args:
            model: The classifier that was explained.
            images: (B, C, H, W).
            explanation: Of these images.
            truth: (B, H, W) masks or (B, 4) boxes, where the metric needs them.

        Returns:
            (B, …): anything whose mean over images `finish` can read.
        """

    @abstractmethod
    def finish(self, mean: Tensor) -> Tensor:
        """The result from the mean over images of what `score` returns, vectorised.

        Args:
            mean: (…, *statistic shape), such as one row a bootstrap resample.

        Returns:
            (…) results.
        """
