"""Tables of papers as data: the metrics that one takes, and the columns that it shows them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from xcam.core import Metric
from xcam.metrics import (
    Accuracy,
    AverageDrop,
    AverageGain,
    Deletion,
    IncreaseInConfidence,
    Insertion,
    MaskedAccuracy,
)
from xcam.results.results import Results

__all__ = ["LAYOUTS", "Column", "Layout", "castream", "lcam"]

_IMAGES = "(images)"
_COST = ("cost", "passes")


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        group: The upper of its two headings.
        name: The lower one.
        metric: The label of the metric whose result it shows.
        scale: What the result is multiplied by, such as 100 for a share in percent.
        unmasked: What stands in the line of the images as they are: a number, the label of a metric
            that reads no maps, or None for nothing.
    """

    group: str
    name: str
    metric: str
    scale: float = 1
    unmasked: str | float | None = None


@dataclass(frozen=True, eq=False)
class Layout:
    """A table of a paper: what to evaluate, and how to lay the results out.

    Attributes:
        metrics: By label, for `xcam.evaluate(…, metrics=layout.metrics)`.
        columns: From left to right; the methods are sorted by the first one.
    """

    metrics: Mapping[str, Metric]
    columns: tuple[Column, ...]

    def fill(self, results: Results) -> pd.DataFrame:
        """Return the results in this layout.

        Args:
            results: Of an evaluation by `metrics`; other metrics in it are left out. Intervals are
                in `results.table()`.

        Returns:
            A line for each model and method (the index), the best in the first column first and
            the controls last, and below them one for the images as they are, `"(images)"`. Columns
            are pairs, group and name; the last one, `("cost", "passes")`, is how many images go
            through the model to explain one.

        Raises:
            ValueError: The results lack a metric of the table.
        """
        missing = [label for label in self.metrics if label not in results.metrics]
        if missing:
            raise ValueError(
                f"the results lack {', '.join(missing)}; evaluate with metrics=layout.metrics"
            )
        long = results.table()
        values = long.pivot(index=["model", "method"], columns="metric", values="value")
        first = long[long["metric"] == self.columns[0].metric]  # best first
        lines = pd.MultiIndex.from_frame(first[["model", "method"]])
        shown = values.loc[lines, [column.metric for column in self.columns]]
        shown *= [column.scale for column in self.columns]
        shown.columns = pd.MultiIndex.from_tuples([column[:2] for column in self.columns])
        costs = results.costs().groupby(["model", "method"])["explain_passes"].first()
        shown[_COST] = costs.reindex(shown.index)
        parts = []
        for model, part in shown.groupby(level="model", sort=False):
            parts += [part, self._fill_unmasked(part, long[long["model"] == model], str(model))]
        return pd.concat(parts)

    def render(self, results: Results) -> str:
        """Return `fill` as text, with what was scored on fewer images, and the first errors."""
        table = self.fill(results).to_string(float_format="{:.1f}".format, na_rep="")
        remarks = *_find_fewer_images(results), *results.warnings, *results.first_errors
        return "\n".join([table, *remarks])

    def _fill_unmasked(self, part: pd.DataFrame, long: pd.DataFrame, model: str) -> pd.DataFrame:
        """Return the line of the images as they are, of which nothing is hidden."""
        line = pd.DataFrame(
            index=pd.MultiIndex.from_tuples([(model, _IMAGES)], names=part.index.names),
            columns=part.columns,
            dtype=float,
        )
        line[_COST] = 0.0
        rows = long.sort_values("n")  # the last is of the most images: some methods may have failed
        for column in self.columns:
            value = column.unmasked
            if isinstance(value, str):
                value = column.scale * rows.loc[rows["metric"] == value, "value"].iloc[-1]
            if value is not None:
                line[column.group, column.name] = value
        return line


def lcam(num_classes: int) -> Layout:
    """Return the table that L-CAM's authors judge explanations by, all in percent.

    Average Drop (lower is better), Increase in Confidence (any increase counts) and the accuracy on
    the masked images, of all pixels and of the highest 50 % and 15 % of the map; the accuracy on
    the images (Gkartzonika et al., 2022, "Learning visual explanations for DCNN-based image
    classifiers using an attention mechanism", ECCV Workshops). Images are masked as pixels, by maps
    that are min-maxed before they are resized. The explained class is the predicted one there.

    Args:
        num_classes: How many the model has, at least 2. Top-5 becomes top-2 for five classes or
            fewer, and there is top-1 alone for two.

    Raises:
        ValueError: Fewer than 2 classes.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    tops = [1, *([5] if num_classes > 5 else [2] if num_classes > 2 else [])]
    metrics: dict[str, Metric] = {f"top-{top}": Accuracy(top=top) for top in tops}
    columns = []
    for share, muted in {"100%": 0.0, "50%": 0.5, "15%": 0.85}.items():
        shows_all = muted == 0
        metrics[f"AD({share})"] = AverageDrop(muted=muted)
        metrics[f"IC({share})"] = IncreaseInConfidence(muted=muted, strict=True)
        for name in ("AD", "IC"):
            columns.append(Column(share, name, f"{name}({share})", 1, 0.0 if shows_all else None))
        for name, top in ((f"top-{top}", top) for top in tops):
            metrics[f"{name}({share})"] = MaskedAccuracy(top=top, muted=muted)
            columns.append(
                Column(share, name, f"{name}({share})", 100, name if shows_all else None)
            )
    return Layout(metrics, tuple(columns))


def castream() -> Layout:
    """Return the table that CA-Stream's authors judge explanations by, all in percent.

    AD, AG and AI (an increase must be one) of images that are masked as pixels, and the areas under
    the curves of insertion and deletion with their 28 steps (Torres Figueroa et al., 2024,
    arXiv:2404.14996). The explained class is the label there.
    """
    preset = "castream"
    metrics: dict[str, Metric] = {
        "AD": AverageDrop(),
        "AG": AverageGain(),
        "AI": IncreaseInConfidence(strict=True),
        "I": Insertion(preset=preset),
        "D": Deletion(preset=preset),
    }
    unmasked = {"AD": 0.0, "AG": 0.0, "AI": 0.0}
    columns = [Column("masked", name, name, 1, value) for name, value in unmasked.items()]
    columns += [Column("curves", name, name, 100) for name in ("I", "D")]
    return Layout(metrics, tuple(columns))


LAYOUTS: Mapping[str, Callable[[int], Layout]] = MappingProxyType(
    {"lcam": lcam, "castream": lambda num_classes: castream()}
)
"""The tables by name; each takes the number of classes."""


def _find_fewer_images(results: Results) -> Iterator[str]:
    """Yield a sentence for each method that was scored on fewer images than others."""
    counts = results.table(resamples=1).groupby(["model", "method"])["n"].min()
    for (model, method), count in counts.items():
        if count < counts.max():
            yield f"{method} ({model}): {count} images, others {counts.max()}"
