"""The table for the terminal: a line a method, a column a metric, the best group marked."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from commands import refused, run
from evaluations import NET, Pictures

import xcam
from xcam.results.wide import render_wide


def peak(images, ids, target):
    maps = torch.zeros(len(images), *images.shape[2:])
    maps[:, 0, 0] = 1
    return maps


def other_peak(images, ids, target):
    return peak(images, ids, target).flip(-1)


def ramp(images, ids, target):
    return torch.arange(256.0).view(1, 16, 16).expand(len(images), -1, -1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "wide"
    maps = {"peak": peak, "other": other_peak, "ramp": ramp}
    xcam.evaluate(NET, Pictures(8), (), ["sparseness", "entropy"], maps=maps, out=out)
    return out


def test_best_and_what_is_not_worse_is_marked(folder):
    """A peak of n pixels has the sparseness 1 - 1/n and no entropy, wherever it is."""
    lines = xcam.results.Results(folder).to_text().splitlines()
    assert lines[0].split() == ["method", "entropy", "↓", "sparseness", "↑"]
    cells = {line.split()[0]: line.split()[1:] for line in lines[1:7]}
    assert cells["peak"] == cells["other"] == ["0.000*", f"{1 - 1 / 256:.3f}*"]
    marked = {name for name, values in cells.items() if "*" in "".join(values)}
    assert marked == {"peak", "other"}
    assert [line.split()[0] for line in lines[4:7]] == ["center_gaussian", "random", "sobel"]
    assert lines[7].startswith("* the best, or not significantly worse")
    assert lines[8].startswith("1 model, 6 methods, 2 metrics, 8 rows each, 0 errors")


def frame(*metrics, value=0.5):
    return pd.DataFrame(
        [
            {"model": model, "metric": metric, "direction": "higher", "method": method,
             "control": False, "value": value}
            for model in "ab" for metric in metrics for method in ("gradcam", "x" * 40)
        ]
    )  # fmt: skip


def test_what_does_not_fit_is_named():
    metrics = [f"metric_{number}" for number in range(9)]
    text = render_wide(frame(*metrics), {("a", "metric_0", "gradcam")}, 80)
    lines = text.splitlines()
    assert lines[0] == "a"
    assert all(len(line) <= 80 for line in lines[:8])
    shown = lines[1].split()[1::2]
    assert lines[8] == f"left out, the line is too short: {', '.join(metrics[len(shown) :])}"
    assert text.count("0.500*") == 1
    assert render_wide(frame(*metrics), set(), None).splitlines()[1].split()[-2] == "metric_8"


def test_missing_results_are_dashes():
    text = render_wide(frame("deletion", value=np.nan), set(), 80)
    assert text.splitlines()[2].split() == ["gradcam", "-"]
    assert "*" not in text


def test_results_are_compared_from_the_shell(folder):
    shown = run("compare", folder, "--reference", "peak", "--json").stdout
    found = pd.DataFrame(json.loads(shown))
    expected = xcam.results.Results(folder).compare(reference="peak")
    assert found["b"].tolist() == expected["b"].tolist()
    assert found["difference"].tolist() == pytest.approx(expected["difference"].tolist())
    shown = run("compare", folder, "--reference", "peak").stdout
    assert shown.splitlines()[0].split() == list(expected.columns)
    assert "no results of 'x'; there are" in refused("compare", folder, "--reference", "x")


def test_table_is_json_for_scripts(folder, monkeypatch):
    from xcam.cli.tables import Format

    results, printed = xcam.results.Results(folder), []
    monkeypatch.setattr("typer.echo", lambda text, **_: printed.append(text))
    for form in (Format(json=True), Format(csv=True), Format(latex=True), Format(long=True)):
        form.print(results)
    as_json, as_csv, as_latex, as_long = printed
    assert [row["method"] for row in json.loads(as_json)] == results.table()["method"].tolist()
    assert as_csv.splitlines()[0].split(",") == list(results.table().columns)
    assert as_latex == results.to_latex()
    assert as_long == str(results)
    with pytest.raises(ValueError, match="give one of --long, --csv"):
        Format(long=True, csv=True)
