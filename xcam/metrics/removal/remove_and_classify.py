"""Remove and classify: accuracy without the highest pixels, relative to random erasure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Explanation, Metric, MetricSpec, Target
from xcam.engine import untouched
from xcam.engine.shared import shareable
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

__all__ = ["RemoveAndClassify"]


@dataclass(frozen=True, eq=False, repr=False)
class RemoveAndClassify(Metric):
    """Remove and classify: accuracy without the highest pixels, relative to random erasure.

    Mean over k of R_k = #{argmax f(x without its k highest pixels) = class} / #{the same without k
    random pixels} (Kim et al., 2021, CALM, arXiv:2106.07861), the counts over the whole data set.
    The class is the explanation's; CALM explains the labels. The authors draw pixels anew for each
    image and k; here a seed fixes one order of all pixels, the same for each image, so that a
    result depends on nothing else; it is the order of no map of the method `random`. Points where
    no randomly erased image is recognized have no ratio and are left out of the mean; without any
    other it is NaN. Lower is better; 1 is what a random map reaches.

    Attributes:
        fractions: k, of the pixels, rounded down.
        seed: Of the random order, and of that of equal values.
        space: Where pixels are erased; the authors erase normalized ones.
        fill: What replaces them; zero of a normalized image is the data set's mean color.
        ties: How equal values are ordered: in `"scan"` order, in `"reverse"`, or in a `"random"`
            order an image.
    """

    fractions: Fractions = (0.1, 0.3, 0.5, 0.7, 0.9)
    seed: int = 0
    space: Space = "normalized"
    fill: Fill = "zero"
    ties: Ties = "scan"

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="remove_and_classify",
        title="Remove and classify",
        paper="Kim et al., 2021, arXiv:2106.07861",
        formula="mean over k of accuracy without the k highest pixels / without k random ones",
        higher_is_better=False,
        bounds=(0.0, float("inf")),
        cost="2 × len(fractions)",
    )

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
        """Return hits (B, 2, P), those of the map and of random erasure; see `Metric.score`."""
        maps = read_ordered_maps(explanation, images, self.ties)
        ranks = rank_values(maps, draw_order(images, maps[0].numel(), self.ties, self.seed))
        target = read_target(explanation, images)
        settings = self.fractions, self.space, self.fill
        with untouched(model), torch.no_grad():
            found = _classify_erased(model, images, target, ranks, *settings)
            chance = _classify_randomly_erased(model, images, target, self.seed, *settings)
        return torch.stack([found, chance], 1)

    def finish(self, mean: Tensor) -> Tensor:
        """Return the mean over k of the ratios that exist."""
        return self._ratios(mean).nanmean(-1)

    def curve(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ratios over k, from 1 where nothing is erased to 1 where everything is."""
        ratios = torch.nn.functional.pad(self._ratios(mean), (1, 1), value=1.0)
        return mean.new_tensor([0.0, *self.fractions, 1.0]), ratios

    @property
    def curve_axes(self) -> tuple[str, str]:
        """Return what the axes of the curve are."""
        return "share of pixels removed", "accuracy over that of random removal"

    @staticmethod
    def _ratios(mean: Tensor) -> Tensor:
        found, chance = mean.unbind(-2)
        return torch.where(chance > 0, found / chance, torch.nan)


@shareable
def _classify_randomly_erased(
    model: nn.Module,
    images: Tensor,
    target: Target,
    seed: int,
    fractions: Fractions,
    space: Space,
    fill: Fill,
) -> Tensor:
    """Return hits (B, P) without random pixels, which are the same for every map."""
    height, width = images.shape[2:]
    order = torch.randperm(height * width, generator=torch.Generator().manual_seed(seed))
    ranks = order.view(1, height, width).to(images.device).expand(len(images), -1, -1)
    return _classify_erased(model, images, target, ranks, fractions, space, fill)


def _classify_erased(
    model: nn.Module,
    images: Tensor,
    target: Target,
    ranks: Tensor,
    fractions: Fractions,
    space: Space,
    fill: Fill,
) -> Tensor:
    """Return hits (B, P) without the first pixels of an order (B, H, W)."""
    counts = count_at_fractions(fractions, ranks[0].numel())
    net, shown = enter_space(model, images, space)
    read = make_hit_reader(target)
    return remove_progressively(net, shown, ranks, counts, read, fill, label="remove_and_classify")
