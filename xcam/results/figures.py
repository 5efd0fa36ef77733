"""Results as pictures: methods side by side on images, and curves with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from xcam import imaging
from xcam._explain.verb import explain
from xcam.core import Explanation, Method
from xcam.core.figures import DPI, INK, draw_grid, write_figure
from xcam.data.categories import list_categories, number_classes
from xcam.data.joining import number_parts_alike
from xcam.metrics import AverageDrop, IncreaseInConfidence
from xcam.models import Normalized
from xcam.models.categories import find_categories

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["draw_comparison", "draw_curves", "draw_samples"]

_SAMPLES = 6


def draw_comparison(
    model: nn.Module,
    images: Tensor,
    explanations: Mapping[str, Explanation],
    path: str | Path | None = None,
    categories: Sequence[str] = (),
) -> Figure:
    """Draw methods side by side, with the effect of what each map shows on the model.

    Beneath each overlay stand AD, the drop in percent of the explained class's probability on the
    image masked by the map, as in L-CAM's tables, and IC, 100 % where that probability rises and
    0 % where not. Overlays show the maps as they are scored, min-maxed: also what is negative.

    Args:
        model: The classifier that was explained; left as it was.
        images: (B, C, H, W), the images that were explained; C of 1 or 3.
        explanations: Of these images, by the title of the column.
        path: Where to write the picture, in the format of its suffix.
        categories: Names of the model's classes.

    Raises:
        ValueError: No explanations, or of other images; or matplotlib does not write the format.
        OSError: The folder is missing or cannot be written to.
    """
    if not explanations:
        raise ValueError("there is nothing to compare; give explanations by title")
    beneath = {}
    for title, explanation in explanations.items():
        drops = AverageDrop().score(model, images, explanation).tolist()
        rises = IncreaseInConfidence(strict=True).score(model, images, explanation).tolist()
        pairs = zip(drops, rises, strict=True)
        beneath[title] = [f"AD {drop:.0f} %, IC {rise:.0f} %" for drop, rise in pairs]
    overlays = {
        title: imaging.overlay(images, imaging.normalize(one.maps))
        for title, one in explanations.items()
    }
    rows = next(iter(explanations.values())).captions(categories)
    return draw_grid(images, overlays, rows, path, beneath=beneath)


def draw_curves(points: pd.DataFrame, title: str, path: str | Path | None = None) -> Figure:
    """Draw curves with their intervals as bands, a model a panel.

    Args:
        points: Columns `model`, `method`, `x`, `y`, `low` and `high`; see `Results.curves`.
        title: Above the panels.
        path: Where to write the picture, in the format of its suffix.

    Raises:
        ValueError: matplotlib does not write the format.
        OSError: The folder is missing or cannot be written to.
    """
    from matplotlib.figure import Figure

    models = points["model"].unique()
    figure = Figure(figsize=(5 * len(models), 3.5), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False, sharey=True)[0]
    for axes, model in zip(panels, models, strict=True):
        for method, curve in points[points["model"] == model].groupby("method"):
            axes.plot(curve["x"], curve["y"], label=str(method), linewidth=1.2)
            axes.fill_between(curve["x"], curve["low"], curve["high"], alpha=0.2, linewidth=0)
        axes.set_title(model, fontsize=9, color=INK)
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10, color=INK)
    return write_figure(figure, path)


def draw_samples(
    model: Normalized,
    data: Any,  # noqa: ANN401 - a data set of xcam.data
    methods: Iterable[Method],
    path: str | Path | None = None,
    *,
    target: Literal["predicted", "label"] = "predicted",
    **settings: Any,  # noqa: ANN401
) -> Figure:
    """Explain six images from all over a data set by each method, and draw the comparison.

    Args:
        model: The classifier; left as it was.
        data: A data set with (image, label, …) items.
        methods: Each gets a column.
        path: Where to write the picture; see `draw_comparison`.
        target: The class that is explained.
        **settings: Of `xcam.explain`, such as `batch_size`.

    Raises:
        ValueError: No methods, or see `draw_comparison`.
    """
    data = number_parts_alike(data)
    count = min(_SAMPLES, len(data))  # of a folder of classes, the first ones are of one class
    items = [data[number * len(data) // count] for number in range(count)]
    images = torch.stack([item[0] for item in items]).to(model.mean.device)
    classes = _read_labels(model, data, items) if target == "label" else None
    methods = list(methods)
    titles = [method.spec.title for method in methods]
    explanations = {
        repr(method) if titles.count(title) > 1 else title: explain(
            model, images, classes, method, **settings
        )
        for title, method in zip(titles, methods, strict=True)
    }
    return draw_comparison(model, images, explanations, path, model.categories)


def _read_labels(model: Normalized, data: object, items: Sequence[Any]) -> Tensor:
    """Return the labels of some items as the model numbers its classes."""
    labels = torch.tensor([int(item[1]) for item in items])
    names, reference = list_categories(data), find_categories(model)
    # `evaluate` has compared numbers with numbers.
    numbering = number_classes(names, reference, lambda: len(names)) if reference else None
    return labels if numbering is None else numbering.translate(labels)
