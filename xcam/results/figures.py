"""Results as pictures: methods side by side on images, and curves with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from xcam import imaging
from xcam.core import Explanation
from xcam.core.figures import DPI, INK, grid, write
from xcam.metrics import AverageDrop, IncreaseInConfidence

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["comparison", "curves"]


def comparison(
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
    return grid(images, overlays, rows, path, beneath=beneath)


def curves(points: pd.DataFrame, title: str, path: str | Path | None = None) -> Figure:
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
    return write(figure, path)
