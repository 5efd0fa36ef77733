"""The tables and the figure of what `five_papers.py` measured, over the seeds in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from xcam.results.significance import adjust_holm

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"
COLUMNS = ["data", "seed", "judge", "model", "method", "metric", "direction"]
COLUMNS += ["minus", "value", "low", "high", "p", "n", "errors"]
KEYS, CASE = ["data", "method", "judge"], ["data", "seed", "metric"]
TITLES = {  # in the order of the columns; `roar(…)` comes after `road`
    "accuracy": "accuracy",
    "insertion": "insertion",
    "deletion": "deletion",
    "average_drop": "AD",
    "increase_in_confidence": "IC",
    "average_gain": "AG",
    "adcc": "ADCC",
    "road": "ROAD",
    "roar": "ROAR",
    "pointing_game": "pointing game",
    "pxap": "PxAP",
    "preference": "preference",
    "mprt": "MPRT",
    "max_sensitivity": "max-sensitivity",
    "explain_seconds": "seconds",
    "explain_passes": "passes",
}


def report(out: Path, figures: Path = FIGURES) -> None:
    """Print the tables of all data sets and seeds in a folder; write the rows and the figure."""
    rows = pd.concat([pd.read_csv(path) for path in sorted(out.glob("*/*/results.csv"))])
    rows["p_holm"] = adjust_holm(rows["p"].tolist())
    kept = rows.drop(columns=["direction", "errors"])
    kept.to_csv(figures / "five_papers.csv", index=False, float_format="%.4g")
    settings = rows["judge"] == "settings"
    print(f"{render_table(rows[~settings])}\n\n{render_settings(rows[settings])}\n")
    tests, errors = int(rows["p"].notna().sum()), int(rows["errors"].sum())
    significant = int((rows["p_holm"] < 0.05).sum())
    print(f"{tests} paired tests, {significant} significant at 5 % by Holm; {errors} failed rows")
    draw_ranks(rank_methods(rows[~settings]), figures / "five_papers.png")


def sort_metrics(metrics: pd.Series) -> list[str]:
    """Return the metrics that there are, in the order of the table."""
    return sorted(metrics.unique(), key=lambda name: ([*TITLES].index(name.split("(")[0]), name))


def name_column(metric: str, direction: str = "") -> str:
    """Return the title of a metric, with an arrow towards what is better."""
    name, bracket, rest = metric.partition("(")
    arrow = {"higher": " ↑", "lower": " ↓"}.get(direction, "")
    return f"{TITLES[name]}{bracket and ' '}{rest.removesuffix(')')}{arrow}"


def render_table(rows: pd.DataFrame) -> str:
    """Return the wide table: a line for a method and the net that judges it, a column a metric.

    Mean over the seeds ± half their range; ▲ and ▼ with the number of seeds in which the method is
    better and worse than Grad-CAM of the net that judges (an accuracy: than the frozen net's), by
    paired tests on the same images with Holm's correction for all tests of the study.
    """
    rows = rows[(rows["judge"] != "own") | (rows["method"] != "Grad-CAM")]
    directions = rows.groupby("metric")["direction"].first()
    found, tests = rows[rows["minus"].isna()], rows[rows["minus"].notna()]
    sign = tests["value"] * tests["metric"].map(directions.map({"higher": 1, "lower": -1}))
    sign = sign.where(tests["p_holm"] < 0.05, 0)
    counts = pd.DataFrame({"▲": sign > 0, "▼": sign < 0})
    counts = counts.groupby([tests[key] for key in (*KEYS, "metric")]).sum()
    cells = {}
    for key, values in found.groupby([*KEYS, "metric"])["value"]:
        spread = (values.max() - values.min()) / 2
        marks = counts.loc[key] if key in counts.index else pd.Series(dtype=int)
        marked = "".join(f" {mark}{count}" for mark, count in marks.items() if count)
        cells[key] = f"{values.mean():.3g} ± {spread:.1g}{marked}"
    table = pd.Series(cells).unstack()[sort_metrics(found["metric"])]
    table.columns = [name_column(metric, directions[metric]) for metric in table]
    return render_markdown(table.rename_axis(KEYS).reset_index())


def render_settings(rows: pd.DataFrame) -> str:
    """Return how far maps of nets of different settings agree: mean of pairs, lowest, highest."""
    texts = [f"{r.value:.3f} ({r.low:.3f}–{r.high:.3f})" for r in rows.itertuples()]
    cells = rows.assign(text=texts).pivot(index=KEYS[:2], columns="metric", values="text")
    return render_markdown(cells.reset_index())


def render_markdown(table: pd.DataFrame) -> str:
    """Return a table of texts in Markdown."""
    lines = [[*table.columns], ["---"] * len(table.columns), *table.fillna("").to_numpy()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rank_methods(rows: pd.DataFrame) -> pd.DataFrame:
    """Rank the methods by each metric, 1 the best, mean over the seeds.

    By the frozen net where it scores the map, else by the net that the map is of.

    Returns:
        A line for each data set and method, a column a metric.
    """
    of_maps = ~rows["metric"].isin(["accuracy", "explain_seconds", "explain_passes"])
    rows = rows[rows["minus"].isna() & of_maps]
    rows = rows[(rows["judge"] != "own") | (rows["method"] != "Grad-CAM")]
    rows = rows.sort_values("judge").drop_duplicates([*CASE, "method"])  # "frozen" before "own"
    worse = rows["value"] * rows["direction"].map({"higher": -1, "lower": 1})
    ranked = rows.assign(rank=worse.groupby([rows[key] for key in CASE]).rank())
    ranks = ranked.pivot_table(index=KEYS[:2], columns="metric", values="rank")
    return ranks[sort_metrics(ranked["metric"])]


def draw_ranks(ranks: pd.DataFrame, path: Path) -> None:
    """Draw a panel a data set: the ranks, the method with the lowest mean on top."""
    from matplotlib.figure import Figure

    panels = ranks.groupby(level=0)
    figure = Figure(figsize=(8 * len(panels), 7), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (data, part) in zip(grid, panels, strict=True):
        shown = part.droplevel(0).dropna(axis=1, how="all")
        titles = [name_column(metric) for metric in shown]
        shown = shown.assign(mean=shown.mean(axis=1)).sort_values("mean")
        axes.imshow(shown, cmap="viridis_r", aspect="auto", alpha=0.6)
        for (line, column), rank in np.ndenumerate(shown):
            if rank == rank:
                axes.text(column, line, f"{rank:.1f}", ha="center", va="center", size=7)
        axes.set_xticks(range(shown.shape[1]), [*titles, "mean"], rotation=60, ha="right")
        axes.set(yticks=range(len(shown)), yticklabels=shown.index, title=data)
    figure.savefig(path, dpi=100)
