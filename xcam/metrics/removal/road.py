"""ROAD, remove and debias: removed pixels are imputed from their neighbors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from xcam.core import Explanation, Metric, MetricSpec, NonNegative, Share, Target
from xcam.engine import forward, untouched
from xcam.engine.chunks import collect
from xcam.engine.shared import shareable
from xcam.metrics.inputs import read_maps, read_target
from xcam.metrics.reading import check_changed, make_score_and_hit_reader
from xcam.metrics.removal.imputation import impute
from xcam.metrics.removal.pixels import (
    Ties,
    count_at_fractions,
    draw_order,
    level,
    rank_values,
)
from xcam.models.normalized import Space, enter_space

__all__ = ["ROAD", "Fractions", "MeasuredOutput", "ROADLeRF", "ROADMoRF"]

Order: TypeAlias = Literal["morf", "lerf"]
"""Most relevant first, or least."""

MeasuredOutput: TypeAlias = Literal["prob", "accuracy"]
"""The probability of the explained class, or whether the model still decides for it."""

Fractions: TypeAlias = tuple[Share, ...]
"""Of the pixels that are removed."""

_PAPER = "Rong et al., 2022, arXiv:2202.00449"
_TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class _Imputed(Metric):
    """The settings and scores of all three, apart from the order of removal."""

    fractions: Fractions = _TENTHS
    output: MeasuredOutput = "accuracy"
    noise: NonNegative = 0.01
    seed: int = 0
    space: Space = "input"
    ties: Ties = "random"

    orders: ClassVar[tuple[Order, ...]]

    def __post_init__(self) -> None:
        """Refuse an empty tuple of fractions."""
        super().__post_init__()
        if not self.fractions:
            raise ValueError("fractions must be at least one number in [0, 1], got none")

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return the probability and 1 for a hit at each of P fractions; see `Metric.score`.

        (B, P, 2) of a single order, (B, 2, P, 2) of both, most relevant first.
        """
        maps = read_maps(explanation, images, order=self.ties != "random")
        target = read_target(explanation, images)
        settings = self.fractions, self.noise, self.seed, self.space, self.ties
        with untouched(model):
            curves = [
                _measure_curve(model, images, maps, target, order, *settings)
                for order in self.orders
            ]
        found = check_changed(torch.stack(curves, 1))  # at once: the host waits for a GPU
        return found if len(curves) > 1 else found[:, 0]

    def finish(self, mean: Tensor) -> Tensor:
        """Return the mean of the curve over fractions."""
        return self.curve(mean)[1].mean(-1)

    def curve(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the accuracy or probability over fractions; of two orders, half the gap."""
        chosen = mean[..., get_args(MeasuredOutput).index(self.output)]
        if len(self.orders) > 1:
            chosen = (chosen[..., 1, :] - chosen[..., 0, :]) / 2
        return mean.new_tensor(self.fractions), chosen

    @property
    def curve_axes(self) -> tuple[str, str]:
        """Return what the axes of the curve are."""
        x, y = super().curve_axes
        return x, f"half the gap in {y}" if len(self.orders) > 1 else y


@dataclass(frozen=True)
class ROADMoRF(_Imputed):
    """ROAD, most relevant first: accuracy without the highest pixels.

    Mean over fractions f of s_f, the accuracy or the probability of the explained class once the
    share f of pixels with the highest values is removed: each is set to the weighted mean of its
    neighbors (`imputation.impute`) plus noise, so that the shape of the hole, which
    may give the class away, is hard to see (Rong et al., 2022, arXiv:2202.00449). If everything is
    removed, what is left is the mean color under noise. Equal values, and so all pixels of a flat
    map, go in one random order that `seed` fixes for all images; the authors add noise to the map
    instead. Accuracy is that of the model if the labels were explained. Lower is better.

    Attributes:
        fractions: Of the pixels that are removed, each in [0, 1].
        output: Of which the result is the mean: `"accuracy"` or `"prob"`.
        noise: Standard deviation of the noise on imputed pixels, in units of the images, or of
            normalized ones; the same noise for all images.
        seed: Of the noise and of the order of equal values.
        space: Where noise is added: to the images as the model takes them, or after its own
            normalization, which is pytorch-grad-cam's convention.
        ties: How equal values are ordered: at `"random"`, all images alike, in `"scan"` order, or
            in `"reverse"`.
    """

    orders = ("morf",)
    spec: ClassVar[MetricSpec] = MetricSpec(
        name="road_morf",
        title="ROAD (MoRF)",
        paper=_PAPER,
        formula="mean accuracy without the highest pixels, imputed",
        higher_is_better=False,
        bounds=(0.0, 1.0),
        cost="len(fractions)",
    )


@dataclass(frozen=True)
class ROADLeRF(_Imputed):
    """ROAD, least relevant first: accuracy without the lowest pixels.

    As `ROADMoRF`, with the pixels of the lowest values removed. A fraction is the share removed;
    in the authors' code it is the share kept. Higher is better.

    Attributes:
        fractions: Of the pixels that are removed, each in [0, 1].
        output: Of which the result is the mean: `"accuracy"` or `"prob"`.
        noise: Standard deviation of the noise on imputed pixels.
        seed: Of the noise and of the order of equal values.
        space: Where noise is added.
        ties: How equal values are ordered: at `"random"`, all images alike, in `"scan"` order, or
            in `"reverse"`.
    """

    orders = ("lerf",)
    spec: ClassVar[MetricSpec] = MetricSpec(
        name="road_lerf",
        title="ROAD (LeRF)",
        paper=_PAPER,
        formula="mean accuracy without the lowest pixels, imputed",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        cost="len(fractions)",
    )


@dataclass(frozen=True)
class ROAD(_Imputed):
    """ROAD, both orders: half the difference between LeRF and MoRF.

    Mean over fractions of (LeRF_f − MoRF_f)/2, with the two of `ROADLeRF` and `ROADMoRF`
    (pytorch-grad-cam's combination of Rong et al., 2022, arXiv:2202.00449, which takes differences
    of logits). 0 is what a random order gives. Higher is better.

    Attributes:
        fractions: Of the pixels that are removed, each in [0, 1].
        output: Of which the result is the mean: `"accuracy"` or `"prob"`.
        noise: Standard deviation of the noise on imputed pixels.
        seed: Of the noise and of the order of equal values.
        space: Where noise is added.
        ties: How equal values are ordered: at `"random"`, all images alike, in `"scan"` order, or
            in `"reverse"`.
    """

    orders = ("morf", "lerf")
    spec: ClassVar[MetricSpec] = MetricSpec(
        name="road",
        title="ROAD",
        paper=_PAPER,
        formula="mean of (LeRF − MoRF)/2, imputed",
        higher_is_better=True,
        bounds=(-0.5, 0.5),
        cost="2 × len(fractions)",
    )


@shareable
def _measure_curve(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target,
    order: Order,
    fractions: Fractions,
    noise: float,
    seed: int,
    space: Space,
    ties: Ties,
) -> Tensor:
    """Return (B, P, 2), the probability and 1 for a hit, with pixels removed in one order."""
    pixels = maps[0].numel()
    scan = draw_order(images, pixels, ties, seed) if ties != "random" else None
    if ties == "random":
        maps = level(maps)  # here, since what is shared is known by the maps as they were read
        # One for all images. Row after row would make one hole, where scattered pixels are
        # restored by their neighbors.
        scan = torch.randperm(pixels, generator=torch.Generator().manual_seed(seed))
        scan = scan.to(maps.device).expand(len(maps), -1)
    # Of n pixels, those of rank r < k go first, or those of n − 1 − r < k.
    places = rank_values(maps, scan)
    places = places if order == "morf" else pixels - 1 - places
    limits = count_at_fractions(fractions, pixels).to(images.device)
    read = make_score_and_hit_reader(target)
    shape = (len(images), len(limits))
    net, shown = enter_space(model, images, space)
    noises = noise * _noise(shown, seed)

    def step(part: slice) -> Tensor:
        pair = torch.arange(part.start, part.stop, device=images.device)
        row, point = torch.unravel_index(pair, shape)
        removed = places[row] < limits[point, None, None]
        hidden = impute(shown[row], removed) + noises * removed[:, None]
        return read(forward.call(net, hidden), row)

    with torch.no_grad():
        found = collect(math.prod(shape), step, shown, f"road {order}")
    return found.view(*shape, 2)


def _noise(images: Tensor, seed: int) -> Tensor:
    """Return standard normal noise (C, H, W), the same on every device."""
    return torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed)).to(images)
