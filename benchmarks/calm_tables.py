"""Tables and figures of what `calm_on_cues.py` measured, over all seeds in a folder.

    python benchmarks/calm_tables.py runs/calm

prints the tables, and writes every value and the figures into `docs/figures`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from attention_tables import FIGURES, markdown, shown
from calm_on_cues import REMOVAL, SCORES
from PIL import Image

CONTROLS = ("center_gaussian", "random", "sobel")
COLUMNS = ["seed", "judge", "net", "method", "metric", "value", "low", "high", "n"]
PERCENT = ("PxAP", "MaxBoxAccV2", "accuracy")  # with other digits than shares and ratios
PER_NET = ["accuracy", "difference of odds", "correlation of maps"]


def report(out: Path, figures: Path = FIGURES) -> None:
    """Print the tables of all seeds in a folder; write the values, and draw them."""
    table = pd.concat([pd.read_csv(path) for path in sorted(out.glob("*/results.csv"))])
    curves = pd.concat([pd.read_csv(path) for path in sorted(out.glob("*/curves.csv"))])
    table[COLUMNS].to_csv(figures / "calm_on_cues.csv", index=False, float_format="%.4g")
    columns = ["seed", "judge", "method", "x", "y", "low", "high"]
    curves[columns].to_csv(figures / "calm_on_cues_curves.csv", index=False, float_format="%.4g")
    maps = Image.open(min(out.glob("*/maps.png"))).quantize()
    maps.save(figures / "calm_on_cues_maps.png", optimize=True)
    plot(curves, figures / "calm_on_cues.png")
    print(spread(table[table["metric"].isin(PER_NET)], ["judge"], PER_NET), "\n")
    scores = table[table["metric"].isin(SCORES)]
    two = table[table["metric"].isin(["counterfactual", "turned"])]
    for title, part in (("judged by its own net", "own"), ("judged by plain", "plain")):
        chosen = (scores["judge"] == "plain") == (part == "plain")
        print(f"{title}\n\n{spread(scores[chosen], ['judge', 'method'], [*SCORES])}\n")
    print(f"A rather than B\n\n{spread_counterfactuals(two)}\n")
    for judge, part in (("its own net", "own"), ("plain", "plain")):
        chosen = curves[(curves["judge"] == "plain") == (part == "plain")]
        chosen = chosen[chosen["x"].between(0.01, 0.99)].rename(columns={"y": "value"})
        chosen = chosen.assign(metric=chosen["x"].map("{:.0%}".format))
        shares = sorted(chosen["metric"].unique())
        print(f"R_k, by {judge}\n\n{spread(chosen, ['judge', 'method'], shares)}\n")


def spread(table: pd.DataFrame, lines: list[str], metrics: list[str]) -> str:
    """Format mean over seeds, lowest and highest; a line a net or method, a column a metric."""
    keys = [table[name].fillna("") for name in lines]
    cells = pd.Series(
        {
            key: shown(key[-1] if key[-1] in PERCENT else "preference", part)
            for key, part in table.groupby([*keys, table["metric"]])["value"]
        }
    ).unstack()
    found = [name for name in metrics if name in cells]
    return markdown(cells[found].fillna("").rename_axis(lines).reset_index())


def spread_counterfactuals(table: pd.DataFrame) -> str:
    """Format the counterfactuals of each net and method, judged by it and by the plain net."""
    by_plain = (table["judge"] == "plain") & (table["metric"] == "turned")
    metric = table["metric"].where(~by_plain, "turned, by plain")
    names = ["counterfactual", "turned", "turned, by plain"]
    return spread(table.assign(metric=metric), ["net", "method"], names)


def plot(curves: pd.DataFrame, path: Path) -> None:
    """Draw the curves of removal, a panel a judge, a line a method and a band over the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = [("its own net", curves["judge"] != "plain"), ("plain", curves["judge"] == "plain")]
    for axes, (title, chosen) in zip(figure.subplots(1, 2), panels, strict=True):
        for (judge, method), part in curves[chosen].groupby(["judge", "method"]):
            if method in CONTROLS[2:] or "ml" in (judge, method):  # far off, and as "em"
                continue
            label = method if judge == "plain" else f"{judge}, {method}"
            band = part.groupby("x")["y"].agg(["mean", "min", "max"])
            style = "--" if method == "gradcam" else "-"
            (line,) = axes.plot(band.index, band["mean"], style, label=label, marker=".")
            axes.fill_between(
                band.index, band["min"], band["max"], alpha=0.15, color=line.get_color()
            )
        axes.axhline(1, color="gray", linewidth=0.8)
        axes.set(title=f"{REMOVAL}, by {title}", xlabel="share of the pixels that is removed")
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    report(Path(sys.argv[1]))
