"""The page of an evaluation: tables, charts, examples, and how all of it was made."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from xcam.core import Metric
from xcam.core.page import write_page
from xcam.results import page_examples as pictures
from xcam.results import page_facts as facts
from xcam.results.bootstrap import Sample
from xcam.results.page_charts import GRAY, Chart, Marker, draw_cost, draw_curve, draw_ranks
from xcam.results.page_table import list_columns, list_rows
from xcam.sentences import pluralize

__all__ = ["Findings", "write_results_page"]

_COLORS = 10
_DASHES = ("", "6 2", "2 2", "8 2 2 2", "10 3 3 3 3 3")
_MOST_METHODS = 12  # with pictures, of a model
_MOST_COLUMNS = 24  # of all models
_WORST = (
    "The images on which the methods, without controls, score worst: by the mean of their "
    "results over methods and metrics, each in standard deviations from the metric's mean. "
    "In brackets that score."
)


@dataclass(frozen=True)
class Findings:
    """What a page is made of.

    Attributes:
        folder: Of the evaluation.
        metrics: By label.
        controls: The methods that are controls.
        titles: Of methods by label, where they have one.
        table: What `Results.table` returns.
        ranks: What `Results.ranks` returns.
        costs: What `Results.costs` returns.
        curves: What `Results.curves` returns, of each metric that has a curve.
        best: What `find_best_groups` returns.
        summary: Counts in a line.
        notices: Sentences on what failed and what is flat.
        samples: Yields the methods of a model and their statistics by a metric.
        images: The ids of the images of these statistics.
    """

    folder: Path
    metrics: Mapping[str, Metric]
    controls: Collection[str]
    titles: Mapping[str, str]
    table: pd.DataFrame
    ranks: pd.DataFrame
    costs: pd.DataFrame
    curves: Mapping[str, pd.DataFrame]
    best: Collection[tuple[str, str, str]]
    summary: str
    notices: Sequence[str]
    samples: Any
    images: Sequence[str]


@dataclass(frozen=True)
class _Gallery:
    """Rows of pictures with a title and a sentence above."""

    title: str
    text: str
    columns: Sequence[str]
    examples: Sequence[Any]


def write_results_page(
    path: str | Path,
    found: Findings,
    data: Any,  # noqa: ANN401 - what `evaluate` takes
    title: str,
    seed: int,
    examples: int,
    worst: int,
) -> None:
    """Write the page; see `Results.to_html`."""
    run = facts.read_run(found.folder)
    source = None if data is None else pictures.make_source(data)
    markers = _make_markers(found)
    parts = []
    for model in found.table["model"].unique():
        part = _make_part(found, str(model), markers)
        part["galleries"] = _make_galleries(found, run, str(model), source, (seed, examples, worst))
        parts.append(part)
    content = {
        "title": title,
        "summary": found.summary,
        "notices": found.notices,
        "parts": parts,
        "legend_text": "A value with its 95 % interval. Marked with *: the best of a column and "
        "those that are not significantly worse, on the same images (paired bootstrap, Holm, "
        "5 %), without controls. Click on a title to sort.",
        "metrics": facts.describe_metrics(found.metrics),
        "methods": facts.describe_methods(run),
        "facts": facts.list_facts(run),
        "commands": facts.read_commands(found.folder),
        "call": facts.make_call(run, found.metrics, found.controls),
    }
    write_page(path, "results.html", content)


def _make_markers(found: Findings) -> dict[str, Marker]:
    """Return a marker of each method: the best by mean rank first, the controls last and gray."""
    mean = found.ranks["mean"].groupby("method").mean()
    methods = sorted(
        map(str, found.table["method"].unique()),
        key=lambda name: (name in found.controls, mean.get(name, math.inf), name),
    )
    markers, gray = {}, 0
    for number, method in enumerate(methods):
        is_control = method in found.controls
        color = GRAY if is_control else f"c{number % _COLORS}"
        step = gray + 1 if is_control else number // _COLORS
        gray += is_control
        name = found.titles.get(method, method)
        markers[method] = Marker(number + 1, name, color, _DASHES[step % len(_DASHES)])
    return markers


def _make_part(found: Findings, model: str, markers: Mapping[str, Marker]) -> dict[str, Any]:
    """Return the table and the charts of a model."""
    table = found.table[found.table["model"] == model]
    here = {name: one for name, one in markers.items() if name in set(table["method"])}
    costs = found.costs[found.costs["model"] == model]
    seconds = costs.groupby("method")["explain_seconds"].mean().dropna().to_dict()
    is_ranked = model in found.ranks.index.get_level_values("model")
    ranks = found.ranks.loc[model] if is_ranked else found.ranks.iloc[:0].droplevel("model")
    mean = ranks["mean"].dropna().to_dict()
    charts = [draw_ranks(ranks.dropna(axis=1, how="all"), here)] if len(ranks) else []
    cost = draw_cost("Cost against quality", mean, seconds, here, "mean rank (1 is best)", False)
    best = {(metric, method) for of, metric, method in found.best if of == model}
    return {
        "name": model,
        "markers": list(here.values()),
        "columns": list_columns(found.metrics, table),
        "rows": list_rows(table, found.metrics, here, best, mean, seconds),
        "charts": [*charts, *([cost] if cost else [])],
        "curves": [
            draw_curve(
                f"{metric}: {found.metrics[metric].spec.title}",
                found.metrics[metric].curve_axes,
                points[points["model"] == model],
                here,
            )
            for metric, points in found.curves.items()
            if model in set(points["model"])
        ],
        "costs": list(_draw_costs(found, table, seconds, here)),
    }


def _draw_costs(
    found: Findings,
    table: pd.DataFrame,
    seconds: Mapping[str, float],
    markers: Mapping[str, Marker],
) -> Iterator[Chart]:
    """Yield a chart for each metric that ranks maps."""
    for label, metric in found.metrics.items():
        if metric.spec.higher_is_better is None or not metric.spec.reads_maps:
            continue
        lines = table[table["metric"] == label]
        quality = dict(zip(lines["method"], lines["value"], strict=True))
        is_higher_better = metric.spec.higher_is_better
        better = f"{label} ({metric.spec.direction} is better)"
        chart = draw_cost(label, quality, seconds, markers, better, is_higher_better)
        if chart:
            yield chart


def _make_galleries(
    found: Findings,
    run: Mapping[str, Any],
    model: str,
    source: pictures.Source | None,
    chosen: tuple[int, int, int],
) -> list[_Gallery]:
    """Return random examples and the worst cases of a model, where maps are stored."""
    seed, examples, worst = chosen
    mean = found.ranks["mean"].groupby("method").mean()
    methods = map(str, found.table[found.table["model"] == model]["method"].unique())
    ordered = sorted(methods, key=lambda one: (one in found.controls, mean.get(one, math.inf)))
    stored = pictures.list_folders(found.folder, model, ordered)
    if not stored:
        return []
    most = min(_MOST_METHODS, max(1, _MOST_COLUMNS // found.table["model"].nunique()))
    folders = dict(list(stored.items())[:most])
    names = _name_apart({method: found.titles.get(method, method) for method in folders})
    shown = pictures.Shown(folders, names, facts.make_methods(run, model))
    columns = pictures.list_columns(shown, source is not None)
    places = pictures.list_places(found.folder, model)
    drawn = pictures.choose_random(places, examples, seed)
    left_out = len(stored) - len(folders)
    more = f" The {left_out} methods of the lowest ranks are left out." if left_out else ""
    text = f"{pluralize(len(drawn), 'image')} of {len(places)}, drawn by the seed {seed}.{more}"
    galleries = [_Gallery("Examples", text, columns, pictures.show(drawn, shown, source))]
    scored = pictures.choose_worst(places, _read_samples(found, model), found.images, worst)
    if scored:
        rows = pictures.show([place for place, _ in scored], shown, source)
        for row, (_, score) in zip(rows, scored, strict=True):
            vars(row)["caption"] += f"\n({score:+.2f})".replace("-", "−")
        galleries.append(_Gallery("Worst cases", _WORST, columns, rows))
    return [one for one in galleries if one.examples]


def _name_apart(names: Mapping[str, str]) -> dict[str, str]:
    """Return titles by label, labels in place of those that several methods share."""
    titles = list(names.values())
    return {label: title if titles.count(title) == 1 else label for label, title in names.items()}


def _read_samples(found: Findings, model: str) -> Iterator[tuple[str, Metric, str, Sample]]:
    """Yield the statistics of the methods, without controls, by the metrics that rank them."""
    for label, metric in found.metrics.items():
        if metric.spec.higher_is_better is None or not metric.spec.reads_maps:
            continue
        for (_, method), sample in found.samples(label, model):
            if method not in found.controls:
                yield label, metric, method, sample
