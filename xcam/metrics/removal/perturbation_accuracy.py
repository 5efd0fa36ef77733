"""Perturbation accuracy: accuracy without the highest, or lowest, pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Explanation, Metric, MetricSpec
from xcam.engine import untouched
from xcam.imaging import Fill
from xcam.metrics.inputs import read_target
from xcam.metrics.reading import make_hit_reader
from xcam.metrics.removal.pixels import (
    Fractions,
    Ties,
    check_ascending,
    count_at_fractions,
    draw_order,
    rank_values,
    read_ordered_maps,
    remove_progressively,
)
from xcam.models.normalized import Space, enter_space

__all__ = ["NegativePerturbation", "PositivePerturbation"]

_FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_PAPER = "Chefer et al., 2021, arXiv:2012.09838"


@dataclass(frozen=True, eq=False, repr=False)
class _Perturbation(Metric):
    """Accuracy without the pixels at one end of the map, averaged over how many."""

    fractions: Fractions = _FRACTIONS
    space: Space = "input"
    fill: Fill = "zero"
    ties: Ties = "scan"
    seed: int = 0

    sign: ClassVar[int]

    def __post_init__(self) -> None:
        """Refuse fractions that do not ascend."""
        super().__post_init__()
        check_ascending(self.fractions)

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B, P), 1 where the class survived and 0 where not; see `Metric.score`."""
        first = self.sign * read_ordered_maps(explanation, images, self.ties)
        counts = count_at_fractions(self.fractions, first[0].numel())
        ranks = rank_values(first, draw_order(images, first[0].numel(), self.ties, self.seed))
        read, name = make_hit_reader(read_target(explanation, images)), self.spec.name
        with untouched(model), torch.no_grad():
            net, shown = enter_space(model, images, self.space)
            return remove_progressively(net, shown, ranks, counts, read, self.fill, label=name)

    def finish(self, mean: Tensor) -> Tensor:
        """Return the mean over k."""
        return mean.mean(-1)

    def curve(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the accuracy over k."""
        return mean.new_tensor(self.fractions), mean

    @property
    def curve_axes(self) -> tuple[str, str]:
        """Return what the axes of the curve are."""
        return "share of pixels removed", "accuracy"


@dataclass(frozen=True, eq=False, repr=False)
class PositivePerturbation(_Perturbation):
    """Positive perturbation: accuracy without the highest pixels, averaged over how many.

    Mean over k of P(argmax f(x without its k highest pixels) = class) (Chefer et al., 2021,
    arXiv:2012.09838). The class is the explanation's: with the labels
    explained it is the accuracy that is published. Lower is better; in [0, 1].

    Attributes:
        fractions: k, of the pixels, rounded down.
        space: Where pixels are replaced.
        fill: What replaces them; zero of an image in [0, 1] is black, as in the authors' code.
        ties: How equal values are ordered: in `"scan"` order, in `"reverse"`, or in a `"random"`
            order an image.
        seed: Of that random order.
    """

    sign: ClassVar[int] = 1

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="perturbation_accuracy_positive",
        title="Perturbation accuracy (positive)",
        aliases=("positive_perturbation",),
        paper=_PAPER,
        formula="mean over k of accuracy without the k highest pixels",
        higher_is_better=False,
        bounds=(0.0, 1.0),
        cost="len(fractions)",
    )


@dataclass(frozen=True, eq=False, repr=False)
class NegativePerturbation(_Perturbation):
    """Negative perturbation: accuracy without the lowest pixels, averaged over how many.

    Mean over k of P(argmax f(x without its k lowest pixels) = class), as `PositivePerturbation`
    otherwise. Higher is better; in [0, 1].

    Attributes:
        fractions: k, of the pixels, rounded down.
        space: Where pixels are replaced.
        fill: What replaces them; zero of an image in [0, 1] is black, as in the authors' code.
        ties: How equal values are ordered: in `"scan"` order, in `"reverse"`, or in a `"random"`
            order an image.
        seed: Of that random order.
    """

    sign: ClassVar[int] = -1

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="perturbation_accuracy_negative",
        title="Perturbation accuracy (negative)",
        aliases=("negative_perturbation",),
        paper=_PAPER,
        formula="mean over k of accuracy without the k lowest pixels",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        cost="len(fractions)",
    )
