"""Selectivity: the score's curve as parts are removed, explained once or before each step."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam._explain.prepared import prepare, run
from xcam.core import Count, Explanation, Method, Metric, MetricSpec, Target
from xcam.engine import forward, untouched, unwrap
from xcam.engine.chunks import collect
from xcam.imaging import Fill, make_fill
from xcam.metrics.inputs import read_target, require_method
from xcam.metrics.reading import check_changed, make_score_and_hit_reader
from xcam.metrics.removal.pixels import (
    Ties,
    compute_area,
    count_at_fractions,
    draw_order,
    level,
    rank_values,
    read_ordered_maps,
    remove_progressively,
)
from xcam.models.normalized import Normalized, Space, enter_space

__all__ = ["Selectivity", "Unit"]

Unit: TypeAlias = Literal["pixel", "patch", "element"]

_PRESETS = {
    "whitebox": {
        "unit": "element",
        "recompute": True,
        "exclude_removed": False,
        "steps": 50,
        "step": 1,
        "fill": "zero",
    }
}


@dataclass(frozen=True, eq=False, repr=False)
class Selectivity(Metric):
    """Selectivity: the area under the score's curve while the highest parts are removed.

    AUC = (Σ_k s_k − s_0/2 − s_n/2)/n, s_k the probability of the explained class, or the accuracy,
    after k of n steps (Montavon et al., 2018, arXiv:1706.07979). The published procedure explains
    each changed image again (`recompute`); by default the order is that of the maps given, as in
    Quantus. `preset="whitebox"` takes one color value a step, 50 times, of maps made again, and
    may take the same one for ever: its curves then go flat. Lower is better.

    Attributes:
        unit: What is removed at once: a `"pixel"`, a `"patch"` of pixels by the sum of its values,
            or an `"element"`, one channel of a pixel, by the values of `Explanation.raw`; in images
            of one channel, that is a pixel.
        patch: Side of a patch, in pixels; at the right and bottom border they may be smaller.
        recompute: Explain the changed image again before each step, by `Explanation.method`.
        exclude_removed: With `recompute`, never remove what is already gone.
        steps: n.
        step: Units removed at each step; None for as many as remove all in the end.
        output: What the result is read from: `"prob"` or `"accuracy"`.
        fill: What stands in for what is removed; see `xcam.imaging.make_fill`.
        space: Where it is filled in: before the model's own normalization or after it.
        ties: How units of equal values are ordered: in `"scan"` order, in `"reverse"`, or in a
            `"random"` order an image.
        seed: Of that random order.
        preset: `"whitebox"` sets unit="element", recompute=True, exclude_removed=False, steps=50,
            step=1, fill="zero".
    """

    unit: Unit = "patch"
    patch: Count = 8
    recompute: bool = False
    exclude_removed: bool = True
    steps: Count = 50
    step: Count | None = None
    output: Literal["prob", "accuracy"] = "prob"
    fill: Fill = "zero"
    space: Space = "input"
    ties: Ties = "scan"
    seed: int = 0
    preset: InitVar[str | None] = None

    presets: ClassVar = _PRESETS
    spec: ClassVar[MetricSpec] = MetricSpec(
        name="selectivity",
        title="Selectivity",
        paper="Montavon et al., 2018, arXiv:1706.07979",
        formula="AUC of f(x without its highest parts)",
        higher_is_better=False,
        bounds=(0.0, 1.0),
        cost="steps + 1, or 1 + steps explanations with recompute",
    )

    def __post_init__(self, preset: str | None) -> None:
        """Refuse to remove again what one map's order removes once."""
        super().__post_init__(preset)
        if not (self.recompute or self.exclude_removed):
            raise ValueError(
                "exclude_removed=False needs recompute=True: in the order of one map nothing is "
                "removed twice"
            )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B, steps + 1, 2), the probability and 1 for a hit; see `Metric.score`."""
        read_ordered_maps(explanation, images, self.ties)
        target = read_target(explanation, images)
        values = self._values(explanation, images)
        counts = self._counts(values[0].numel())
        read = make_score_and_hit_reader(target)
        with untouched(model):
            if self.recompute:
                return self._recomputed(
                    model, images, target, require_method(explanation, "recompute=True"), counts
                )
            net, shown = enter_space(model, images, self.space)
            places = self._spread(self._rank(values, images), images)
            with torch.no_grad():
                return remove_progressively(
                    net, shown, places, counts, read, self.fill, label="selectivity"
                )

    def finish(self, mean: Tensor) -> Tensor:
        """Return the area under the mean curve, which is the mean of the areas."""
        return compute_area(self.curve(mean)[1])

    def curve(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probability or the accuracy over the step."""
        chosen = mean[..., 0 if self.output == "prob" else 1]
        return torch.arange(self.steps + 1, device=mean.device), chosen

    @property
    def reads_channels(self) -> bool:
        """Return whether elements are removed."""
        return self.unit == "element"

    @property
    def curve_axes(self) -> tuple[str, str]:
        """Return what the axes of the curve are."""
        return "step", super().curve_axes[1]

    def _counts(self, units: int) -> Tensor:
        """Return how many of an image's units are removed after each step, (steps + 1,) int64."""
        if self.step is None:
            return count_at_fractions([done / self.steps for done in range(self.steps + 1)], units)
        return (torch.arange(self.steps + 1) * self.step).clamp(max=units)

    def _rank(self, values: Tensor, images: Tensor) -> Tensor:
        """Return the rank of each unit."""
        order = draw_order(images, values[0].numel(), self.ties, self.seed)
        return rank_values(values, order)

    def _values(self, explanation: Explanation, images: Tensor) -> Tensor:
        """Return each unit's value: (B, H, W), (B, rows, columns) of patches, or (B, C, H, W)."""
        maps, raw = explanation.maps.to(images.device), explanation.raw.to(images.device)
        if self.ties == "random":
            maps, raw = level(maps), level(raw)
        if self.unit == "element" and images.shape[1] == 1 and raw.ndim == 3:
            return maps[:, None]
        if self.unit == "pixel":
            return maps
        if self.unit == "patch":
            return F.avg_pool2d(maps, self.patch, ceil_mode=True, divisor_override=1)
        if explanation.raw.shape != images.shape:
            raise ValueError(
                f"unit='element' needs a value of each of {tuple(images.shape)}, got "
                f"{tuple(explanation.raw.shape)}; use a method that explains pixels, such as "
                "'saliency', or another unit"
            )
        return raw

    def _spread(self, units: Tensor, images: Tensor) -> Tensor:
        """Expand values of units to their pixels (B, H, W) or elements (B, C, H, W)."""
        if self.unit != "patch":
            return units
        height, width = images.shape[2:]
        rows = units.repeat_interleave(self.patch, 1)[:, :height]
        return rows.repeat_interleave(self.patch, 2)[:, :, :width]

    def _recomputed(
        self, model: nn.Module, images: Tensor, target: Target, method: Method, counts: Tensor
    ) -> Tensor:
        """Return the statistic of `score` with the images explained again before each step."""
        hidden = self._hidden(model, images)
        read = make_score_and_hit_reader(target)
        rows = torch.arange(len(images), device=images.device)
        prepared, current, removed_units, found = prepare(model, images, method), images, None, []
        for more in counts.diff().tolist():
            explanation = run(prepared, current, Target.of(target.classes, images))
            found.append(read(explanation.logits, rows))
            values = self._values(explanation, images)
            if removed_units is None:
                removed_units = torch.zeros_like(values, dtype=torch.bool)
            open_values = (
                values.masked_fill(removed_units, -torch.inf) if self.exclude_removed else values
            )
            removed_units = removed_units | (self._rank(open_values, images) < more)
            removed = self._spread(removed_units, images)
            current = torch.where(
                removed if removed.ndim == 4 else removed[:, None], hidden, images
            )

        def last(part: slice) -> Tensor:
            return read(forward.call(model, current[part]), rows[part])

        with torch.no_grad():
            found.append(collect(len(images), last, images, "selectivity"))
        return check_changed(torch.stack(found, 1))

    def _hidden(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return the fill in the images' own space, since methods explain the whole model."""
        net, shown = enter_space(model, images, self.space)
        behind = make_fill(shown, self.fill)
        whole = unwrap(model)
        if net is not model and isinstance(whole, Normalized):
            return behind * whole.std + whole.mean
        return behind
