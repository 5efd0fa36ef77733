"""Tables of what `castream_on_cues.py` measured, over all seeds in a folder.

    python benchmarks/castream_tables.py runs/castream

prints the tables, and writes every value into `docs/figures`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from attention_tables import FIGURES, intervals, markdown, shown
from castream_on_cues import LOCALIZATION, METHODS, POOLINGS

from xcam.results.tables import castream

COLUMNS = ["data", "seed", "model", "metric", "method", "minus", "value", "low", "high", "n"]
LAYOUT = castream().columns
JUDGES = {
    "own": "each judged by its own net",
    "GAP": "all judged by the net with average pooling",
    "CA": "all judged by the net with cross-attention",
}


def report(out: Path, figures: Path = FIGURES) -> None:
    """Print the tables of all data sets and seeds in a folder; write the values."""
    paths = sorted(out.glob("*/*/results.csv"))
    table = pd.concat([pd.read_csv(path) for path in paths])
    for column in LAYOUT:
        scaled = table["metric"] == column.metric
        table.loc[scaled, ["value", "low", "high"]] *= column.scale
    table[COLUMNS].to_csv(figures / "castream.csv", index=False, float_format="%.4g")
    for data, found in table.groupby("data"):
        plain = found[found["minus"].isna()]
        print(f"## {data}\n\n{accuracies(plain[plain['metric'] == 'accuracy'])}\n")
        for judge, title in JUDGES.items():
            print(f"{title}\n\n{layout(plain, judge)}\n")
        located = plain[plain["metric"].isin(LOCALIZATION)]
        if len(located):
            print(f"{spread(located, 'method', 'metric')}\n")
        differences = found[found["minus"].notna() & (found["model"] == "GAP")]
        for metric, part in differences.groupby("metric", sort=False):
            print(f"{metric}, cross-attention less average pooling\n\n{intervals(part)}\n")


def accuracies(table: pd.DataFrame) -> str:
    """Format the accuracy with either pooling: a line a net, a column a seed."""
    texts = [
        f"{value:.3f} [{low:.3f}, {high:.3f}]"
        for value, low, high in zip(table["value"], table["low"], table["high"], strict=True)
    ]
    cells = table.assign(text=texts).pivot(index="model", columns="seed", values="text")
    return markdown(cells.loc[list(POOLINGS)].reset_index())


def layout(table: pd.DataFrame, judge: str) -> str:
    """Format the paper's table: mean over seeds, lowest and highest.

    Args:
        table: Of one data set.
        judge: The name of the net that scores all maps, or `"own"` for the net that made each.
    """
    lines = []
    for name in METHODS:
        for pooling in POOLINGS:
            net = pooling if judge == "own" else judge
            own = table[(table["method"] == f"{name}, {pooling}") & (table["model"] == net)]
            by_metric = {metric: part["value"] for metric, part in own.groupby("metric")}
            cells = {column.name: shown(column.name, by_metric[column.metric]) for column in LAYOUT}
            lines.append({"attribution": name, "pooling": pooling, **cells})
    return markdown(pd.DataFrame(lines))


def spread(table: pd.DataFrame, line: str, column: str) -> str:
    """Format mean over seeds, lowest and highest."""
    cells = {key: shown(key[1], part["value"]) for key, part in table.groupby([line, column])}
    return markdown(pd.Series(cells).unstack().rename_axis(line).reset_index())


if __name__ == "__main__":
    report(Path(sys.argv[1]))
