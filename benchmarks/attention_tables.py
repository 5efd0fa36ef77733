"""Tables and figures of what `attention_on_cues.py` measured, over all seeds in a folder.

    python benchmarks/attention_tables.py runs/attention

prints the tables, and writes every value and the figures into `docs/figures`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from attention_on_cues import ATTENTION, HEADS, METRICS
from PIL import Image

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"
KINDS = ("", ", equal weights", ", new head", ", new net")
ORDER = [
    *("gradcam", *HEADS, "lcam, new head"),
    *(f"{name}{kind}" for name in ATTENTION for kind in KINDS),
    *("center_gaussian", "random", "sobel"),
]
SHARES = {"energy", "pointing game", "accuracy under the map", "preference"}  # others are percent
COLUMNS = ["seed", "images", "judge", "metric", "method", "minus", "value", "low", "high", "n"]


def report(out: Path, figures: Path = FIGURES) -> None:
    """Print the tables of all seeds in a folder; write the values, and draw them."""
    table = pd.concat([pd.read_csv(path) for path in sorted(out.glob("*/results.csv"))])
    table[COLUMNS].to_csv(figures / "attention_on_cues.csv", index=False, float_format="%.4g")
    plot(table[table["minus"].isna()], figures / "attention_on_cues.png")
    maps = Image.open(min(out.glob("*/maps.png"))).quantize()  # an eighth of the size
    maps.save(figures / "attention_on_cues_maps.png", optimize=True)
    own = table["method"].isna()
    print(spread(table[own], "judge"), "\n")
    for (images, judge), part in table[~own & table["minus"].isna()].groupby(["images", "judge"]):
        print(f"{images}, judged by {judge}\n\n{spread(part, 'method')}\n")
    less = table[table["minus"].notna() & (table["metric"] == "energy")]
    for images, part in less.groupby("images"):
        print(f"{images}, difference of energy\n\n{intervals(part)}\n")
    for name in ("lost", "evidence", "polarity"):
        parts = [pd.read_csv(path, dtype=str) for path in sorted(out.glob(f"*/{name}.csv"))]
        found = pd.concat(parts).fillna("")
        found.to_csv(figures / f"attention_on_cues_{name}.csv", index=False)
        print(f"{markdown(found)}\n")


def spread(table: pd.DataFrame, line: str) -> str:
    """Format mean over seeds, lowest and highest; a line a method, a column a metric."""
    cells = pd.Series(
        {key: shown(key[1], part) for key, part in table.groupby([line, "metric"])["value"]}
    ).unstack()
    order = [name for name in (*METRICS, "preference") if name in cells] or list(cells)
    lines = sorted(cells.index, key=[*ORDER, "plain"].index)
    return markdown(cells.loc[lines, order].fillna("").rename_axis(line).reset_index())


def shown(metric: str, values: pd.Series) -> str:
    """Format mean, lowest and highest; the mean alone where they print the same."""
    digits = 3 if metric.startswith("accuracy") and metric not in SHARES else 1 + (metric in SHARES)
    mean, low, high = (f"{v:.{digits}f}" for v in (values.mean(), values.min(), values.max()))
    return mean if low == high else f"{mean} ({low}–{high})"


def intervals(table: pd.DataFrame) -> str:
    """Return in Markdown: differences and their 95 % intervals over images, a column a seed."""
    texts = [
        f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
        for value, low, high in zip(table["value"], table["low"], table["high"], strict=True)
    ]
    cells = table.assign(text=texts).pivot(index=["method", "minus"], columns="seed", values="text")
    return markdown(cells.reset_index())


def markdown(table: pd.DataFrame) -> str:
    """Return a table of texts in Markdown."""
    lines = [list(map(str, table.columns)), ["---"] * len(table.columns), *table.to_numpy()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def plot(table: pd.DataFrame, path: Path) -> None:
    """Draw a panel a metric, a line a method, a dot a seed with its interval over images."""
    from matplotlib.figure import Figure

    table = table[(table["judge"] == "plain") & table["method"].notna()]
    one = table[table["images"] == "one cue"]
    methods = [name for name in ORDER if name in set(one["method"])][::-1]
    panels = [(name, one[one["metric"] == name]) for name in METRICS]
    panels.append(("preference, two cues", table[table["metric"] == "preference"]))
    figure = Figure(figsize=(13, 7), layout="constrained")
    for axes, (name, part) in zip(figure.subplots(2, 4, sharey=True).flat, panels, strict=True):
        for place, (seed, rows) in enumerate(part.groupby("seed")):
            heights = [methods.index(method) + 0.2 * (1 - place) for method in rows["method"]]
            ends = (rows["value"] - rows["low"], rows["high"] - rows["value"])
            style = {"fmt": ".", "markersize": 4, "linewidth": 1, "label": f"seed {seed}"}
            axes.errorbar(rows["value"], heights, xerr=ends, **style)
        axes.set(title=name, yticks=range(len(methods)), yticklabels=methods)
        axes.grid(axis="x", alpha=0.3)
    figure.axes[-1].legend(loc="lower right")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    report(Path(sys.argv[1]))
