"""The table that L-CAM's authors judge explanations by: the metrics it takes, and its layout."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from xcam.core import Metric
from xcam.metrics import Accuracy, AverageDrop, IncreaseInConfidence, MaskedAccuracy
from xcam.results.results import Results

__all__ = ["metrics", "table"]

# The share of the pixels that is seen, and what is muted for it.
_SHARES = {"100%": 0.0, "50%": 0.5, "15%": 0.85}
_IMAGES = "(images)"


def metrics(num_classes: int) -> dict[str, Metric]:
    """The metrics of the table by their labels, for `xcam.evaluate`.

    Average Drop, Increase in Confidence (any increase counts) and the accuracy on the masked
    images, of all pixels and of the highest 50 % and 15 % of the map; the accuracy on the images
    (Gkartzonika et al., 2022, "Learning visual explanations for DCNN-based image classifiers using
    an attention mechanism", ECCV Workshops). Images are masked as pixels, by maps that are
    min-maxed before they are resized. The explained class is the predicted one there.

    Args:
        num_classes: How many the model has, at least 2. Top-5 becomes top-2 for five classes or
            fewer, and there is top-1 alone for two.

    Raises:
        ValueError: Fewer than 2 classes.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    tops = [1, *([5] if num_classes > 5 else [2] if num_classes > 2 else [])]
    found: dict[str, Metric] = {f"top-{top}": Accuracy(top=top) for top in tops}
    for share, muted in _SHARES.items():
        found[f"AD({share})"] = AverageDrop(muted=muted)
        found[f"IC({share})"] = IncreaseInConfidence(muted=muted, strict=True)
        found |= {f"top-{top}({share})": MaskedAccuracy(top=top, muted=muted) for top in tops}
    return found


def table(results: Results) -> pd.DataFrame:
    """The results of these metrics in the layout of the paper, all in percent.

    Args:
        results: Of an evaluation by `metrics`; other metrics in it are left out. Their intervals
            are in `results.table()`.

    Returns:
        A line a model and method (the index), the one with the lowest AD(100%) first and the
        controls last, and below them one for the images as they are, `"(images)"`. Columns are
        pairs: under each of `"100%"`, `"50%"` and `"15%"` of the pixels `AD` (lower is better),
        `IC`, `top-1` and `top-5` (higher is better); under `"cost"` `passes`, the images through
        the model to explain one.

    Raises:
        ValueError: The results lack a metric of the table.
    """
    tops = [label for label in ("top-1", "top-2", "top-5") if label in results.metrics]
    columns = [(share, name) for share in _SHARES for name in ("AD", "IC", *tops)]
    labels = [f"{name}({share})" for share, name in columns]
    missing = [label for label in (*labels, "top-1") if label not in results.metrics]
    if missing:
        raise ValueError(
            f"the results lack {', '.join(missing)}; evaluate with xcam.results.lcam.metrics(…)"
        )
    long = results.table()
    long["value"] *= 1 + 99 * long["metric"].str.startswith("top")  # shares as percent
    values = long.pivot(index=["model", "method"], columns="metric", values="value")
    best_first = long[long["metric"] == labels[0]]
    shown = values.loc[pd.MultiIndex.from_frame(best_first[["model", "method"]]), labels]
    shown.columns = pd.MultiIndex.from_tuples(columns)
    costs = results.costs().groupby(["model", "method"])["explain_passes"].first()
    shown["cost", "passes"] = costs.reindex(shown.index)
    return _with_images(shown, long, tops)


def _with_images(shown: pd.DataFrame, long: pd.DataFrame, tops: Sequence[str]) -> pd.DataFrame:
    """The table with a line a model for its images as they are, of which nothing is hidden."""
    parts = []
    for model, part in shown.groupby(level="model", sort=False):
        rows = long[long["model"] == model].sort_values("n")  # some methods may have failed
        line = pd.DataFrame(
            index=pd.MultiIndex.from_tuples([(model, _IMAGES)], names=part.index.names),
            columns=part.columns,
            dtype=float,
        )
        line["100%", "AD"] = line["100%", "IC"] = line["cost", "passes"] = 0.0
        for top in tops:
            line["100%", top] = rows.loc[rows["metric"] == top, "value"].iloc[-1]
        parts += [part, line]
    return pd.concat(parts)
