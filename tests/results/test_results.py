"""What is read off the rows of an evaluation, against pandas, numpy and scipy on the same rows."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from recorded import COUNT, METHODS, METRICS, Plain, fail, records, spec, values_of, write

from xcam.core import MetricSpec
from xcam.errors import XcamWarning
from xcam.results import Results, rows
from xcam.results.parts import SCHEMA


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

    def test_table_is_the_same_again(self, results):
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

    def test_errors_are_counted_and_listed(self, broken):
        table = broken[1].table().set_index(["metric", "method"])
        assert table.loc["plain", "gradcam"][["n", "rows", "errors"]].tolist() == [35, 35, 5]
        assert table.loc["plain", "random"][["n", "rows", "errors"]].tolist() == [0, 0, 40]
        assert np.isnan(table.loc["plain", "random"]["value"])
        errors = broken[1].errors()
        assert len(errors) == 45
        assert set(errors["error"]) == {"ValueError: no map"}
        counts, reason = str(broken[1]).splitlines()[-2:]
        assert counts.endswith("45 errors")
        assert reason == "first error of gradcam, random (net): ValueError: no map"
        assert f"<p>{reason}</p>" in broken[1]._repr_html_()

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


@dataclass(frozen=True)
class Ratio(Plain):
    """Undefined without a second number."""

    spec: ClassVar[MetricSpec] = spec("ratio", True)

    def finish(self, mean):
        return torch.where(mean[..., 1, 1] > 0, mean[..., 0, 0] / mean[..., 1, 1], torch.nan)


class TestUndefined:
    @pytest.fixture
    def ratios(self, tmp_path):
        """Of eight images one has the second number, which a third of the resamples lack."""
        found = [row for row in records(8) if row["metric"] == "best"]
        for row in found:
            row["values"] = np.ones(6) if row["index"] == 0 else np.zeros(6)
        return Results(write(tmp_path, found), {"best": Ratio()})

    def test_resamples_are_counted_in_one_warning(self, ratios):
        sentence = r"^of 2000 resamples, .* the result is undefined: best \(up to (\d+)\)$"
        with pytest.warns(XcamWarning, match=sentence) as caught:
            table = ratios.table()
        assert len(caught) == 1
        count = int(str(caught[0].message).split("up to ")[1][:-1])
        assert count / 2000 == pytest.approx((7 / 8) ** 8, abs=0.04)
        assert table["value"].tolist() == [1, 1, 1]
        assert table[["low", "high"]].notna().all(axis=None)
        ratios.table()  # says it once

    def test_resamples_of_differences_too(self, ratios):
        with pytest.warns(XcamWarning, match="of 100 resamples, .*undefined: best") as caught:
            ratios.compare(resamples=100)
        assert len(caught) == 1

    def test_results_say_it_by_being_nan(self, ratios, tmp_path):
        found = [row for row in records(8) if row["metric"] == "best"]
        for row in found:
            row["values"] = np.zeros(6)
        table = Results(write(tmp_path / "none", found), {"best": Ratio()}).table()
        assert table[["value", "low", "high"]].isna().all(axis=None)


class TestCurves:
    def test_curves_are_means_with_intervals(self, results, found):
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
        names = [line.get_label() for line in axes.get_lines()][:3]
        assert names == ["Grad-CAM", "my_cam", "Random"]
        assert (tmp_path / "curves.png").stat().st_size > 1000
        assert axes.get_xlabel() == "share of pixels removed"
        assert axes.get_ylabel() == "area"
        *others, control = [
            (line.get_color(), line.get_linestyle()) for line in axes.get_lines()[:3]
        ]
        assert control == ("#888888", "--")
        assert others == [("C0", "-"), ("C1", "-")]

    def test_legend_gives_areas_and_lies_outside(self, results, found):
        figure = results.plot_curves("area")
        (legend,) = figure.legends
        texts = [text.get_text() for text in legend.get_texts()]
        for text, method, name in zip(
            texts, METHODS, ["Grad-CAM", "my_cam", "Random"], strict=True
        ):
            area = np.trapezoid(values_of(found, method, "area").mean(0), dx=0.25)
            assert text == f"{name}  {area:.3f}"
        figure.draw_without_rendering()
        assert legend.get_window_extent().x0 >= figure.axes[0].get_window_extent().x1

    def test_plot_of_some(self, tmp_path):
        two = Results(write(tmp_path, records(models=("a", "b"))), METRICS)
        figure = two.plot_curves("area", methods=["random", "gradcam"])
        assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
        names = [line.get_label() for line in figure.axes[0].get_lines()]
        assert names == ["Grad-CAM", "Random"]  # controls last
        assert all(text.get_text().count(",") == 1 for text in figure.legends[0].get_texts())
        assert len(two.plot_curves("area", model="b").axes) == 1
        with pytest.raises(ValueError, match="no results of the model 'c'; there are a, b"):
            two.plot_curves("area", model="c")
        with pytest.raises(ValueError, match="no results of the method 'rise'; there are gradcam"):
            two.plot_curves("area", methods="rise")

    def test_plot_of_single_images(self, results, found, tmp_path):
        """A panel a method: thin lines of some images, and the mean over all."""
        figure = results.plot_curves("area", tmp_path / "curves.png", samples=10)
        assert [axes.get_title() for axes in figure.axes] == ["Grad-CAM", "my_cam", "Random"]
        values = values_of(found, "my_cam", "area")
        *thin, mean = (line.get_ydata() for line in figure.axes[1].get_lines())
        np.testing.assert_allclose(thin, values[::4], atol=1e-6)
        np.testing.assert_allclose(mean, values.mean(0), atol=1e-6)

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
        counts = "1 model, 3 methods, 4 metrics, 40 rows each, 0 errors"
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
