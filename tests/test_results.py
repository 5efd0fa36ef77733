"""What is read off the rows of an evaluation, against pandas, numpy and scipy on the same rows."""

import itertools
import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
import torch

from xcam.core import Metric, MetricSpec
from xcam.errors import FileFormatError
from xcam.results import Results, rows
from xcam.results.latex import escaped
from xcam.store import SCHEMA

COUNT = 40
METHODS = ["gradcam", "my_cam", "random"]


def spec(name, higher):
    return MetricSpec(name, name, "", "", higher, (0, 1))


@dataclass(frozen=True)
class Plain(Metric):
    """A number an image."""

    spec: ClassVar[MetricSpec] = spec("plain", True)

    def score(self, model, images, explanation, truth=None):
        raise NotImplementedError

    def finish(self, mean):
        return mean


@dataclass(frozen=True)
class Area(Plain):
    """The area under a curve of five points."""

    spec: ClassVar[MetricSpec] = spec("area", False)

    def finish(self, mean):
        return mean.mean(-1)

    def curve(self, mean):
        return torch.linspace(0, 1, 5), mean


@dataclass(frozen=True)
class Best(Plain):
    """The best of 2 × 3 thresholds for the whole data set."""

    spec: ClassVar[MetricSpec] = spec("best", True)

    def finish(self, mean):
        return mean.flatten(-2).amax(-1)


@dataclass(frozen=True)
class Neutral(Plain):
    spec: ClassVar[MetricSpec] = spec("neutral", None)


METRICS = {"plain": Plain(), "area": Area(), "best": Best(), "neutral": Neutral()}
SHAPES = {"plain": (), "area": (5,), "best": (2, 3), "neutral": ()}


def records(count=COUNT, models=("net",), methods=METHODS, rows_an_image=1, seed=0):
    """Rows whose values rise with the method's place in the list."""
    generator = np.random.default_rng(seed)
    return [
        {
            "index": index,
            "image": f"image-{index // rows_an_image}",
            "model": model,
            "target": 3,
            "label": None,
            "method": method,
            "metric": metric,
            "values": generator.random(int(np.prod(shape))) + 0.3 * methods.index(method),
            "shape": list(shape),
            "seconds": 0.5,
            "passes": 2.0,
            "explain_seconds": 0.25,
            "explain_passes": 1.0,
            "error": None,
        }
        for index in range(count)
        for model, method, (metric, shape) in itertools.product(models, methods, SHAPES.items())
    ]


def write(folder, found, size=8):
    """A part for every `size` images, and a manifest."""
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(found)
    for number, part in found_by(table, size):
        path = folder / "rows" / f"batch-{number:08d}.parquet"
        pq.write_table(pa.Table.from_pylist(part.to_dict("records"), SCHEMA), path)
    names = {name: {"name": name} for name in table["method"].unique()}
    manifest = {"methods": names, "metrics": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def found_by(table, size):
    table = table.astype(object).where(table.notna(), None)
    return table.groupby(table["index"].astype(int) // size)


def values_of(found, method, metric, model="net"):
    """(N, S) of the rows that worked, in order."""
    wanted = (model, method, metric)
    chosen = [row for row in found if (row["model"], row["method"], row["metric"]) == wanted]
    values = np.stack([row["values"] for row in chosen if row["error"] is None])
    return values.astype(np.float32).astype(np.float64)


def fail(row, why="ValueError: no map"):
    row.update(values=None, shape=None, seconds=None, passes=None, error=why)


@pytest.fixture(scope="module")
def found():
    return records()


@pytest.fixture(scope="module")
def results(found, tmp_path_factory):
    return Results(write(tmp_path_factory.mktemp("run"), found), METRICS)


class TestTable:
    def test_values_are_finished_means(self, results, found):
        table = results.table().set_index(["metric", "method"])
        assert len(table) == 12
        for method in METHODS:
            plain, best = values_of(found, method, "plain"), values_of(found, method, "best")
            line = table.loc["plain", method]
            assert line["value"] == pytest.approx(plain.mean(), abs=1e-7)
            assert line[["n", "rows", "errors"]].tolist() == [COUNT, COUNT, 0]
            assert table.loc["best", method]["value"] == pytest.approx(best.mean(0).max(), abs=1e-7)

    def test_intervals_are_close_to_scipy(self, results, found):
        table = results.table().set_index(["metric", "method"])
        area = values_of(found, "gradcam", "area").mean(1)
        low, high = scipy.stats.bootstrap((area,), np.mean, method="BCa", rng=0).confidence_interval
        got = table.loc["area", "gradcam"]
        assert [got["low"], got["high"]] == pytest.approx([low, high], abs=0.1 * (high - low))

    def test_best_first_and_controls_last(self, results):
        table = results.table()
        methods = {name: list(part["method"]) for name, part in table.groupby("metric")}
        assert methods["plain"] == ["my_cam", "gradcam", "random"]
        assert methods["area"] == ["gradcam", "my_cam", "random"]
        assert methods["neutral"] == ["gradcam", "my_cam", "random"]
        assert list(table["method"][table["control"]].unique()) == ["random"]
        directions = dict(zip(table["metric"], table["direction"], strict=True))
        assert directions == {
            "plain": "higher",
            "best": "higher",
            "area": "lower",
            "neutral": "neither",
        }

    def test_is_the_same_again(self, results):
        again = Results(results.folder, METRICS).table()
        pd.testing.assert_frame_equal(results.table(), again, check_exact=True)
        changed = results.table()
        changed["value"] = 0
        assert results.table()["value"].min() > 0

    def test_does_not_depend_on_the_parts_or_on_the_budget(
        self, results, found, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(rows, "_BUDGET", 1)
        again = Results(write(tmp_path, found, size=3), METRICS).table()
        pd.testing.assert_frame_equal(results.table(), again, check_exact=True)

    def test_temporary_files_are_no_parts(self, results, found, tmp_path):
        write(tmp_path, found)
        (tmp_path / "rows" / ".batch-00000099.parquet.part").write_bytes(b"cut")
        pd.testing.assert_frame_equal(Results(tmp_path, METRICS).table(), results.table())

    def test_one_image_has_no_interval(self, tmp_path):
        table = Results(write(tmp_path, records(1)), METRICS).table()
        assert table[["low", "high"]].isna().all(axis=None)
        assert table["value"].notna().all()

    def test_images_not_rows_are_drawn_again(self, tmp_path):
        """Four equal rows an image say no more than one."""
        once = records(10)
        four = [row | {"index": 4 * row["index"] + copy} for row in once for copy in range(4)]
        tables = [
            Results(write(tmp_path / name, found), METRICS).table()
            for name, found in [("once", once), ("four", four)]
        ]
        assert tables[1]["n"].tolist() == tables[0]["n"].tolist() == [10] * 12
        assert tables[1]["rows"].tolist() == [40] * 12
        columns = ["method", "value", "low", "high"]
        pd.testing.assert_frame_equal(tables[0][columns], tables[1][columns], rtol=1e-6)


class TestErrors:
    @pytest.fixture
    def broken(self, tmp_path):
        """gradcam fails on images 0 … 4 by the metric plain, random on all."""
        found = records()
        for row in found:
            late = row["method"] == "gradcam" and row["index"] >= 5
            if row["metric"] == "plain" and row["method"] != "my_cam" and not late:
                fail(row)
        return found, Results(write(tmp_path, found), METRICS)

    def test_are_counted_and_listed(self, broken):
        table = broken[1].table().set_index(["metric", "method"])
        assert table.loc["plain", "gradcam"][["n", "rows", "errors"]].tolist() == [35, 35, 5]
        assert table.loc["plain", "random"][["n", "rows", "errors"]].tolist() == [0, 0, 40]
        assert np.isnan(table.loc["plain", "random"]["value"])
        errors = broken[1].errors()
        assert len(errors) == 45
        assert set(errors["error"]) == {"ValueError: no map"}
        assert str(broken[1]).endswith("45 errors")

    def test_values_are_of_the_rows_that_worked(self, broken):
        found, results = broken
        table = results.table().set_index(["metric", "method"])
        expected = values_of(found, "gradcam", "plain").mean()
        assert table.loc["plain", "gradcam"]["value"] == pytest.approx(expected, abs=1e-7)

    def test_differences_are_of_the_rows_that_worked_for_both(self, broken):
        found, results = broken
        (line,) = results.compare("gradcam", "my_cam").query("metric == 'plain'").to_dict("records")
        first, second = (values_of(found, name, "plain") for name in ("gradcam", "my_cam"))
        assert line["difference"] == pytest.approx((first - second[5:]).mean(), abs=1e-7)
        assert line["n"] == 35

    def test_no_differences_from_what_has_no_rows(self, broken):
        table = broken[1].compare(reference="random")
        assert "plain" not in set(table["metric"])
        assert broken[1].wins("plain").loc["my_cam", "gradcam"] > 50
        assert "--" in broken[1].to_latex()


class TestCompare:
    def test_is_paired(self, results, found):
        line = results.compare("my_cam", "gradcam").set_index("metric").loc["plain"]
        a, b = (values_of(found, name, "plain")[:, 0] for name in ("my_cam", "gradcam"))
        reference = scipy.stats.bootstrap((a - b,), np.mean, method="BCa", rng=0)
        low, high = reference.confidence_interval
        assert line["difference"] == pytest.approx((a - b).mean(), abs=1e-7)
        assert [line["low"], line["high"]] == pytest.approx([low, high], abs=0.05 * (high - low))

    def test_p_is_corrected_for_the_whole_table(self, results):
        table = results.compare(reference="random", resamples=2000)
        assert list(table["b"].unique()) == ["random"]
        assert len(table) == 8
        smallest = table.loc[table["p"].idxmin()]
        assert smallest["p_holm"] == pytest.approx(8 * smallest["p"])
        assert (table["p_holm"] >= table["p"]).all()

    def test_says_which_is_better(self, results):
        table = results.compare("gradcam", "random").set_index("metric")
        assert table["better"].to_dict() == {
            "area": "gradcam",
            "best": "random",
            "neutral": "",
            "plain": "random",
        }
        assert (table["difference"] < 0).all()

    def test_all_pairs(self, results):
        pairs = results.compare(resamples=100)[["a", "b"]].drop_duplicates()
        assert len(pairs) == 3

    def test_models(self, tmp_path):
        found = records(models=("net", "other"))
        for row in found:
            if row["model"] == "other":
                row["values"] = row["values"] + 1
        results = Results(write(tmp_path, found), METRICS)
        table = results.compare("other", "net", by="model")
        assert len(table) == 12
        assert set(table["method"]) == set(METHODS)
        assert (table["difference"] > 0.5).all()
        plain = table[table["metric"] == "plain"]
        assert set(plain["better"]) == {"other"}
        assert len(results.compare("gradcam", "my_cam", resamples=50)) == 8
        with pytest.raises(ValueError, match="say which model: there are net, other"):
            results.wins("plain")
        assert results.wins("plain", "net").shape == (3, 3)
        with pytest.raises(ValueError, match="no results of 'nett'; there are net, other"):
            results.wins("plain", "nett")

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            ({"a": "gradcam"}, "give two different names"),
            ({"a": "gradcam", "b": "gradcam"}, "give two different names"),
            ({"a": "gradcam", "b": "random", "reference": "my_cam"}, "give two different names"),
            ({"reference": "scorecam"}, "no results of 'scorecam'; there are gradcam, my_cam"),
            ({"by": "metric"}, "by must be 'method' or 'model', got 'metric'"),
        ],
    )
    def test_bad_input(self, results, arguments, sentence):
        with pytest.raises(ValueError, match=sentence):
            results.compare(**arguments)


class TestRanksAndWins:
    def test_ranks(self, results):
        ranks = results.ranks()
        assert list(ranks.columns) == ["area", "best", "plain", "mean"]
        assert ranks.loc["net", "random"].tolist() == [3, 1, 1, pytest.approx(5 / 3)]
        assert ranks.loc["net", "my_cam"].tolist() == [2, 2, 2, 2]
        assert list(ranks["mean"]) == sorted(ranks["mean"])

    def test_ties_share_their_rank(self, tmp_path):
        found = records()
        for row in found:
            row["values"] = np.full(int(np.prod(row["shape"])), 0.5)
        ranks = Results(write(tmp_path, found), METRICS).ranks()
        assert (ranks == 2).all(axis=None)

    @pytest.mark.parametrize(("metric", "sign"), [("plain", 1), ("area", -1)])
    def test_wins(self, results, found, metric, sign):
        wins = results.wins(metric)
        a, b = (values_of(found, name, metric).mean(1) for name in ("gradcam", "my_cam"))
        assert wins.loc["gradcam", "my_cam"] == pytest.approx(100 * (sign * (a - b) > 0).mean())
        assert wins.loc["gradcam", "my_cam"] + wins.loc["my_cam", "gradcam"] == 100
        assert (np.diag(wins) == 50).all()

    def test_only_means_over_images_have_wins(self, results):
        with pytest.raises(ValueError, match="'best' is no mean over images"):
            results.wins("best")
        with pytest.raises(ValueError, match="'neutral' has no direction"):
            results.wins("neutral")
        with pytest.raises(ValueError, match="no results of 'plane'; there are area, best"):
            results.wins("plane")


class TestCurves:
    def test_are_means_with_their_intervals(self, results, found):
        curves = results.curves("area")
        assert list(curves.columns) == ["model", "method", "x", "y", "low", "high"]
        points = curves[curves["method"] == "my_cam"]
        values = values_of(found, "my_cam", "area")
        np.testing.assert_allclose(points["y"], values.mean(0), atol=1e-6)
        np.testing.assert_allclose(points["x"], [0, 0.25, 0.5, 0.75, 1])
        width = 2 * 1.96 * values.std(0) / COUNT**0.5
        np.testing.assert_allclose(points["high"] - points["low"], width, rtol=0.15)

    def test_plot(self, results, tmp_path):
        figure = results.plot_curves("area", tmp_path / "curves.png")
        (axes,) = figure.axes
        assert [line.get_label() for line in axes.get_lines()] == METHODS
        assert (tmp_path / "curves.png").stat().st_size > 1000

    def test_no_curve(self, results):
        with pytest.raises(ValueError, match="'plain' has no curve"):
            results.curves("plain")


class TestOtherViews:
    def test_costs(self, results):
        costs = results.costs()
        assert len(costs) == 12
        names = ["seconds", "passes", "explain_seconds", "explain_passes"]
        assert costs[names].drop_duplicates().to_numpy().tolist() == [[0.5, 2, 0.25, 1]]

    def test_raw_rows(self, results):
        assert len(results.to_pandas()) == 12 * COUNT
        assert list(results.to_pandas("area").columns) == SCHEMA.names
        assert set(results.to_pandas("area")["metric"]) == {"area"}

    def test_text(self, results):
        assert "my_cam" in str(results)
        counts = "1 models, 3 methods, 4 metrics, 40 rows each, 0 errors"
        assert counts in str(results)
        assert counts in repr(results)
        assert "<table" in results._repr_html_()

    def test_text_of_others_is_escaped(self, tmp_path):
        found = records(4)
        for row in found:
            row["method"] = f"<b>{row['method']}_x"
        results = Results(write(tmp_path, found), METRICS)
        assert "<b>" not in results._repr_html_()
        assert r"<b>my\_cam\_x &" in results.to_latex()

    def test_latex(self, results):
        lines = results.to_latex(intervals=False, digits=2).splitlines()
        table = results.table().set_index(["metric", "method"])["value"]
        assert lines[0] == r"\begin{tabular}{lcccc}"
        assert lines[2] == (
            r"Method & area $\downarrow$ & best $\uparrow$ & neutral & plain $\uparrow$ \\"
        )
        area = rf"\textbf{{{table['area', 'gradcam']:.2f}}}"
        others = " & ".join(
            f"{table[name, 'gradcam']:.2f}" for name in ("best", "neutral", "plain")
        )
        assert lines[4] == rf"gradcam & {area} & {others} \\"
        assert lines[6:8] == [r"\addlinespace", lines[7]]
        assert lines[7].count("textbf") == 2
        assert r"{\scriptsize [" in results.to_latex()

    def test_latex_letters(self):
        assert escaped(r"a_b%\~^") == (r"a\_b\%\textbackslash{}\textasciitilde{}\textasciicircum{}")


class TestFolder:
    def test_metrics_are_made_again_from_the_manifest(self, tmp_path):
        found = [row for row in records() if row["metric"] == "plain"]
        for row in found:
            row["metric"] = "gini"
        write(tmp_path, found)
        entry = {"name": "sparseness", "parameters": {}, "repr": "Sparseness()"}
        manifest = {"methods": {}, "metrics": {"gini": entry}}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        assert repr(Results(tmp_path).metrics) == "{'gini': Sparseness()}"
        entry["repr"] = "Sparseness(power=2)"
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ValueError, match=r"'gini' was Sparseness\(power=2\) and would be"):
            Results(tmp_path)
        entry["parameters"] = {"power": 2}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ValueError, match=r"cannot make .* again: .*; give metrics="):
            Results(tmp_path)

    def test_metrics_that_are_not_given(self, results):
        with pytest.raises(ValueError, match="metrics that are not given: best, neutral, plain"):
            Results(results.folder, {"area": Area()})

    def test_no_rows(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no rows in .*what `evaluate` writes"):
            Results(tmp_path, METRICS)

    @pytest.mark.parametrize("first", [True, False])
    def test_damaged_part(self, found, tmp_path, first):
        write(tmp_path, found)
        path = sorted((tmp_path / "rows").iterdir())[0 if first else -1]
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(FileFormatError, match=r"a part in .*rows' is damaged"):
            Results(tmp_path, METRICS)

    def test_foreign_part(self, tmp_path):
        (tmp_path / "rows").mkdir()
        pq.write_table(pa.table({"a": [1]}), tmp_path / "rows" / "batch-00000000.parquet")
        with pytest.raises(FileFormatError, match="lack index, image, model"):
            Results(tmp_path, METRICS)

    def test_rows_twice(self, found, tmp_path):
        write(tmp_path, found)
        path = tmp_path / "rows" / "batch-00000000.parquet"
        (tmp_path / "rows" / "batch-00000099.parquet").write_bytes(path.read_bytes())
        with pytest.raises(FileFormatError, match="several evaluations, or rows twice"):
            Results(tmp_path, METRICS)

    def test_no_manifest(self, found, tmp_path):
        write(tmp_path, found)
        (tmp_path / "manifest.json").unlink()
        with pytest.raises(FileFormatError, match="is no manifest to read"):
            Results(tmp_path)

    def test_values_of_another_shape(self, found, tmp_path):
        changed = [dict(row) for row in found]
        changed[-1] |= {"values": [1.0, 2.0], "shape": [2]}
        with pytest.raises(FileFormatError, match="'neutral' are not all of shape"):
            Results(write(tmp_path, changed), METRICS).table()
