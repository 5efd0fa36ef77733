"""`Metric`: a per-image statistic, then one number from the mean of those statistics."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor, nn

from xcam.core.explanation import Explanation
from xcam.core.finite import check_finite
from xcam.core.settings import Settings

__all__ = ["QUESTIONS", "Metric", "MetricSpec", "Truth"]

Truth = Literal["none", "labels", "boxes", "masks"]
QUESTIONS = ("faithfulness", "localization", "shape", "sanity", "robustness", "axioms")
"""The questions of xcam's own metrics, in the order of lists and tables; others come after."""


@dataclass(frozen=True)
class MetricSpec:
    """What cannot be derived about a metric.

    Attributes:
        name: The name in the registry.
        title: The name in print.
        paper: The source.
        formula: The result in one line.
        higher_is_better: The direction; None where neither is.
        bounds: The range of the result.
        question: What it asks: do the maps say what the model does (`"faithfulness"`),
            do they fall on the object (`"localization"`), what do they look like (`"shape"`), do
            they depend on what was learned (`"sanity"`), do they stay the same where the image
            hardly changes (`"robustness"`), or do they keep the rules of a definition (`"axioms"`)?
            A word of your own for another question.
        truth: What it needs beside the maps.
        cost: Images through the model for each one scored, and explanations of it, a sum in the
            names of the settings: `"2"`, `"1/step + 1"`, `"2 × len(fractions) + 1 explanation"`;
            `"0"` for none.
        known_failures: Pairs of maps that it does not rank right by its defaults where the truth is
            known, each with the reason: `"oracle above random"`, the object's mask and noise, or
            `"random above inverse"`, noise and one minus the mask.
        reads_maps: Whether the result depends on the maps; one that speaks of the model alone is
            scored once for all methods, and ranks none.
        exceptions: Contract checks that the metric cannot keep, each with the reason.
        aliases: Other names in the registry, such as `"ad"`; case, `-` and `_` never matter.
    """

    name: str
    title: str
    paper: str
    formula: str
    higher_is_better: bool | None
    bounds: tuple[float, float]
    question: str = "faithfulness"
    truth: Truth = "none"
    cost: str = "0"
    reads_maps: bool = True
    known_failures: Mapping[str, str] = field(default_factory=dict)
    exceptions: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def direction(self) -> Literal["higher", "lower", "neither"]:
        """Return which direction is better: higher, lower or neither."""
        return {True: "higher", False: "lower", None: "neither"}[self.higher_is_better]  # type: ignore[return-value]

    @property
    def interval(self) -> str:
        """Return the bounds in interval notation, such as `"[0, 1]"` or `"[0, ∞)"`."""
        low, high = self.bounds
        left = "(−∞" if math.isinf(low) else f"[{low:g}"
        right = "∞)" if math.isinf(high) else f"{high:g}]"
        return f"{left}, {right}".replace("[-", "[−")


class Metric(Settings, ABC):
    """A way to score maps: a frozen dataclass of settings, like `Method`.

    `score` gives a statistic an image, `finish` reads the result off the mean of those statistics
    over any set of images. That one form serves plain means, thresholds chosen for a whole data
    set and means over classes; processes add up sums, and every result gets an interval.
    """

    spec: ClassVar[MetricSpec]

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return the result on these images: `finish` of the mean of `score`; see there.

        A metric that explains again, such as `mprt`, does so in full precision, also if the maps
        were made in another one; `xcam.evaluate(precision=)` makes both alike.

        Returns:
            A scalar on the CPU, from a mean in float64, as `xcam.evaluate` computes it.

        Raises:
            TypeError: Maps, or anything else, in place of an explanation.
            ModelOutputError: A statistic is not finite.
        """
        if not isinstance(explanation, Explanation):
            raise TypeError(
                f"a metric scores an explanation, got {type(explanation).__name__}; "
                "make one of maps by xcam.Explanation.of(maps, images)"
            )
        rows = check_finite(
            self.score(model, images, explanation, truth).detach().cpu(),
            lambda image: f"{self.spec.name} gave a value that is not finite for image {image}",
        )
        return self.finish(rows.double().mean(0))

    @abstractmethod
    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return a statistic of each image, independent of its neighbors in the batch.

        Args:
            model: The classifier that was explained; left as it was.
            images: (B, C, H, W), those that were explained.
            explanation: Of these images.
            truth: What `spec.truth` says: (B,) int64 labels, (B, N, 4) boxes or (B, H, W) masks;
                see `xcam.metrics.inputs`.

        Returns:
            (B, …) floating point, on the images' device: anything whose mean over images `finish`
            can read.
        """

    def finish(self, mean: Tensor) -> Tensor:
        """Return the result for a mean over images of what `score` returns, vectorized.

        Here the mean itself; a metric of another statistic than its result overrides it.

        Args:
            mean: (…, and the shape of a statistic), such as one row a bootstrap resample.

        Returns:
            (…) results.
        """
        return mean

    def curve(self, mean: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the curve that is worth plotting beside the result, if there is one.

        Args:
            mean: (…, and the shape of a statistic), a mean over images.

        Returns:
            The (P,) abscissae and the (…, P) ordinates of a curve, or None.
        """
        return None

    @property
    def reads_channels(self) -> bool:
        """Return whether it reads the channels of `Explanation.raw`, which stored maps lack."""
        return False

    @property
    def curve_axes(self) -> tuple[str, str]:
        """Return what the abscissa and the ordinate of the curve are, for figures.

        A metric with a curve of another kind overrides it.
        """
        readings = {
            "prob": "probability of the class",
            "logit": "logit of the class",
            "logprob": "log-probability of the class",
            "accuracy": "accuracy",
        }
        output = self.parameters().get("output")
        return "share of pixels removed", readings.get(str(output), self.spec.title)
