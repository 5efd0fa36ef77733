"""Tables for papers and programs: what is marked, and what names stand there."""

import io
import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from recorded import METRICS, Plain, records, write

from xcam.core import MetricSpec
from xcam.results import Results


@dataclass(frozen=True)
class OfModel(Plain):
    """A metric that reads no maps."""

    spec: ClassVar[MetricSpec] = MetricSpec(
        "of_model", "Of the model", "", "", True, (0, 1), reads_maps=False
    )


@dataclass(frozen=True)
class Titled(Plain):
    spec: ClassVar[MetricSpec] = MetricSpec("titled", "A & B", "", "", True, (0, 1))


def make_results(folder, metrics, models=("net",)):
    """Scores with a tie, a method that is close to it, one that is worse, and a better control."""
    noise = np.random.default_rng(1).normal(size=40)
    base = 0.5 + 0.1 * noise
    values = {
        "gradcam": base,
        "my|cam": base,
        "close": base + 0.05 * np.random.default_rng(2).normal(size=40) - 0.004,
        "worse": base - 0.3,
        "random": base + 0.3,
    }
    found = [
        {**row, "values": np.array([values[row["method"]][row["index"]]]), "metric": name,
         "shape": [], "flat": row["method"] == "worse" and row["index"] == 0}
        for row in records(40, models, list(values))
        for name in metrics if row["metric"] == "plain"
    ]  # fmt: skip
    return Results(write(folder, found), metrics)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    metrics = {"titled": Titled(), "of_model": OfModel(), "neutral": METRICS["neutral"]}
    return make_results(tmp_path_factory.mktemp("run"), metrics)


def read_lines(results):
    """Return the values by method and metric as they are printed."""
    table = results.table()
    return {(x["method"], x["metric"]): f"{x['value']:.3f}" for x in table.to_dict("records")}


def test_latex_marks_ties_alike_and_never_controls(results):
    text = results.to_latex(intervals=False)
    value = read_lines(results)
    plain = {name: value[name, "neutral"] for name in ("gradcam", "close", "worse", "random")}
    assert text.splitlines() == [
        r"\begin{tabular}{lccc}",
        r"\toprule",
        r"Method & neutral & Of the model $\uparrow$ & A \& B $\uparrow$ \\",
        r"\midrule",
        rf"Grad-CAM & {plain['gradcam']} & {plain['gradcam']} & \textbf{{{plain['gradcam']}}} \\",
        rf"my|cam & {plain['gradcam']} & {plain['gradcam']} & \textbf{{{plain['gradcam']}}} \\",
        rf"close & {plain['close']} & {plain['close']} & {plain['close']}$^*$ \\",
        rf"worse$^\dagger$ & {plain['worse']} & {plain['worse']} & {plain['worse']} \\",
        r"\addlinespace",
        rf"Random & {plain['random']} & {plain['random']} & {plain['random']} \\",
        r"\bottomrule",
        r"\multicolumn{4}{l}{\footnotesize $^*$ not significantly worse than the best (paired "
        r"bootstrap, Holm, 5 \%)} \\",
        r"\multicolumn{4}{l}{\footnotesize $^\dagger$ some of the maps are flat: they order no "
        r"pixels} \\",
        r"\end{tabular}",
    ]


def test_values_that_print_alike_are_marked_alike(results):
    """With a digit the close method is the best, too."""
    lines = results.to_latex(intervals=False, digits=1).splitlines()
    assert [line.count(r"\textbf{0.5}") for line in lines[4:7]] == [1, 1, 1]
    assert "$^*$" not in "".join(lines)


def test_markdown_says_the_same(results):
    value = read_lines(results)
    good, close, worse, control = (
        value[name, "neutral"] for name in ("gradcam", "close", "worse", "random")
    )
    assert results.to_markdown().splitlines() == [
        "| method | neutral | Of the model ↑ | A &amp; B ↑ |",
        "| --- | ---: | ---: | ---: |",
        f"| Grad-CAM | {good} | {good} | **{good}** |",
        rf"| my\|cam | {good} | {good} | **{good}** |",
        rf"| close | {close} | {close} | {close}\* |",
        f"| worse † | {worse} | {worse} | {worse} |",
        f"| Random | {control} | {control} | {control} |",
        "",
        r"\* not significantly worse than the best (paired bootstrap, Holm, 5 %)",
        "",
        "† some of the maps are flat: they order no pixels",
    ]


def test_intervals_follow_the_values(results):
    line = results.table().set_index(["metric", "method"]).loc["titled", "gradcam"]
    low, high = f"{line['low']:.2f}", f"{line['high']:.2f}"
    assert rf"{{\scriptsize [{low}, {high}]}}" in results.to_latex(digits=2)
    assert f"[{low}, {high}] |" in results.to_markdown(intervals=True, digits=2)


def test_several_models_are_apart(tmp_path):
    results = make_results(tmp_path, {"titled": Titled()}, models=("a_1", "b"))
    latex = results.to_latex().splitlines()
    assert latex[3:5] == [r"\midrule", r"\multicolumn{2}{l}{a\_1} \\"]
    assert sum(line.count(r"\textbf") for line in latex) == 4
    lines = results.to_markdown().splitlines()
    assert lines[0] == "| model | method | A &amp; B ↑ |"
    assert [line.split(" | ")[0] for line in lines[2:12]] == [r"| a\_1"] * 5 + ["| b"] * 5


def test_label_of_the_users_is_no_title(tmp_path):
    results = make_results(tmp_path, {"mine": Titled()})
    assert "| mine ↑ |" in results.to_markdown()


def test_csv_and_json_are_the_table(results, tmp_path):
    paths = [tmp_path / name for name in ("a.csv", "a.json", "a.md", "a.tex")]
    writers = results.to_csv, results.to_json, results.to_markdown, results.to_latex
    texts = [write(path=path) for write, path in zip(writers, paths, strict=True)]
    assert [path.read_text(encoding="utf-8") for path in paths] == texts
    assert texts == [write() for write in writers]
    table = results.table()
    read = pd.read_csv(io.StringIO(texts[0]))
    pd.testing.assert_frame_equal(read, table, check_dtype=False)
    assert [line["method"] for line in json.loads(texts[1])] == table["method"].tolist()
    assert [line["value"] for line in json.loads(texts[1])] == pytest.approx(table["value"])
