"""The page of an evaluation: its table, its charts, its pictures, how it was made."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from browser import ask, needs_browser, open_page, read
from evaluations import Pictures
from recorded import COUNT, METRICS, fail, records, values_of, write

import xcam
from xcam.explanations.folder import write_maps
from xcam.models.toy import GapNet
from xcam.results import Results, page_facts
from xcam.results.page_charts import Marker, draw_cost, draw_curve, draw_ranks
from xcam.results.page_examples import choose_random, list_places

HOSTILE = '<script>document.title = "owned"</script>"><img src=x onerror=alert(1)>'
METHODS = ["gradcam", HOSTILE, "random"]
RANKING = ["area", "best", "plain"]


class Data:
    """The images of the rows, in another order."""

    ids = tuple(f"image-{index}" for index in reversed(range(COUNT)))

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return torch.full((3, 8, 8), (COUNT - 1 - index) / COUNT), 0


@pytest.fixture(scope="module")
def found():
    rows = records(methods=METHODS)
    for row in rows:
        if row["method"] == "random" and row["metric"] == "plain":
            fail(row, HOSTILE)
    return rows


@pytest.fixture(scope="module")
def results(found, tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("run"), found)
    for number in range(COUNT // 8):
        ids = [f"image-{index}" for index in range(8 * number, 8 * number + 8)]
        maps = torch.zeros(8, 2, 2)
        maps[:, 0, 0] = 1
        path = folder / "maps" / "gradcam" / f"batch-{number:08d}.safetensors"
        write_maps(path, maps, ids, [3] * 8, names=[HOSTILE] * 8)
    page_facts.add_command(folder, "xcam evaluate --data 'a <b>'")
    return Results(folder, METRICS)


@pytest.fixture(scope="module")
def path(results, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    results.to_html(path, Data(), examples=2, worst=3)
    return path


@pytest.fixture(scope="module")
def page(path):
    return read(path)


def test_table_holds_values_intervals_and_the_best_group(page, results):
    table = results.table().set_index(["method", "metric"])
    heads, *rows = page.tables[0]
    assert [head.split("\u00a0")[0] for head in heads] == [
        *("method", "mean rank", "area", "best", "neutral", "plain"),
        *("seconds", "errors", "flat"),
    ]
    names = {f"1 {HOSTILE}": HOSTILE, "2 Grad-CAM": "gradcam", "3 Random": "random"}
    assert [row[0] for row in rows] == list(names)
    for row in rows:
        for head, cell in zip(heads[2:6], row[2:6], strict=True):
            line = table.loc[names[row[0]], head.split("\u00a0")[0]]
            if math.isnan(line["value"]):
                assert cell == "–"
            else:
                assert cell == f"{line['value']:.3f}{line['low']:.3f} … {line['high']:.3f}"
    assert rows[2][-2:] == [str(COUNT), "0"]
    assert [row[1] for row in rows] == [
        f"{results.ranks().loc[('net', names[row[0]]), 'mean']:.2f}" for row in rows
    ]


def test_best_group_is_that_of_the_text(page, results):
    starred = [line.count("*") for line in results.to_text().splitlines()[1:4]]
    assert len(page.find("td", **{"class": "best"})) == sum(starred) > 0


def test_says_what_failed_and_how_it_was_made(page):
    assert f"first error of random (net): {HOSTILE}" in page.text
    assert "xcam evaluate --data 'a <b>'" in page.text
    assert [row[0] for row in page.tables[3]] == ["metric", *sorted(METRICS)]


def test_hostile_names_stay_text(page):
    assert len(page.find("script")) == 1
    assert not any("onerror" in found for found in page.find("img"))


def test_examples_are_drawn_by_the_seed_and_have_their_images(page, results, tmp_path):
    names = [row[0].split("\n")[0] for row in page.tables[1][1:]]
    places = list_places(results.folder, "net")
    assert names == [place.image for place in choose_random(places, 2, 0)]
    assert choose_random(places, 5, 0) != choose_random(places, 5, 1)
    assert page.tables[1][0] == ["name", "image", "Grad-CAM"]
    assert HOSTILE in page.tables[1][1][0]
    assert len(page.find("img")) == 2 * (2 + 3)
    results.to_html(tmp_path / "plain.html", examples=1, worst=0)
    assert len(read(tmp_path / "plain.html").find("img")) == 1  # the map, on gray


def test_worst_cases_by_hand(page, found):
    scores = []
    for metric in ("plain", "area"):  # the result of `best` is of no single image
        sign = 1 if metric == "plain" else -1
        values = [
            sign * values_of(found, method, metric).reshape(COUNT, -1).mean(1)
            for method in METHODS[:2]
        ]
        scores += list((np.stack(values) - np.mean(values)) / np.std(values, ddof=1))
    mean = np.mean(scores, 0)
    worst = np.argsort(mean)[:3]
    rows = [row[0].split("\n") for row in page.tables[2][1:]]
    assert [row[0] for row in rows] == [f"image-{index}" for index in worst]
    assert [row[-1] for row in rows] == [
        f"({mean[index]:+.2f})".replace("-", "−") for index in worst
    ]


def test_images_of_other_data_are_refused(results, tmp_path):
    with pytest.raises(ValueError, match="the data has no image 'image-"):
        results.to_html(tmp_path / "page.html", Pictures())
    with pytest.raises(ValueError, match="at least 0, got -1"):
        results.to_html(tmp_path / "page.html", examples=-1)
    assert list(tmp_path.iterdir()) == []


MARKERS = {name: Marker(number, name, "c0", "") for number, name in enumerate("abc", 1)}


class TestCharts:
    def test_curve_spans_the_axes(self):
        x, y = [0.0, 0.5, 1.0], [0.0, 1.0, 2.0]
        points = pd.DataFrame({"method": "a", "x": x, "y": y, "low": y, "high": [1.0, 2, 4]})
        chart = draw_curve("title", ("x", "y"), points, MARKERS)
        (series,) = chart.series
        assert series.points == "54,230 231,175 408,120"
        assert series.band == "54,175 231,120 408,10 408,120 231,175 54,230"
        assert (chart.y_ticks[0][1], chart.y_ticks[-1][1]) == ("0", "4")
        assert chart.y_ticks[0][0] == 230

    def test_long_curves_are_thinned_to_their_ends(self):
        x = np.linspace(0, 1, 5001)
        points = pd.DataFrame({"method": "a", "x": x, "y": x, "low": x, "high": x})
        (series,) = draw_curve("title", ("x", "y"), points, MARKERS).series
        pairs = series.points.split(" ")
        assert len(pairs) == 120
        assert (pairs[0], pairs[-1]) == ("54,230", "408,10")

    def test_constant_curve_has_an_axis(self):
        x = [0.0, 1.0]
        points = pd.DataFrame({"method": "a", "x": x, "y": 0.0, "low": 0.0, "high": 0.0})
        assert draw_curve("", ("x", "y"), points, MARKERS).series[0].points == "54,120 408,120"

    def test_ranks(self):
        ranks = pd.DataFrame(
            {"m": [1.0, 3], "n": [2.0, np.nan], "mean": [1.5, 3]}, index=["b", "a"]
        )
        chart = draw_ranks(ranks, MARKERS)
        first, second = chart.series
        assert [x for x, _ in first.small] == [162, 282]  # of 162 to 402 for ranks 1 to 3
        assert first.at[0] == 222
        assert len(second.small) == 1
        assert [text for _, text in chart.x_ticks] == ["1", "2", "3"]
        assert [text for _, text in chart.y_ticks] == ["2 b", "1 a"]

    @pytest.mark.parametrize(("higher", "front"), [(True, ["a", "c"]), (False, ["a", "b"])])
    def test_no_faster_method_is_as_good_as_one_of_the_front(self, higher, front):
        seconds, quality = {"a": 0.01, "b": 0.1, "c": 1.0}, {"a": 0.5, "b": 0.4, "c": 0.7}
        chart = draw_cost("", quality, seconds, MARKERS, "q", higher)
        assert [one.marker.name for one in chart.series if one.is_front] == front
        heights = {one.marker.name: one.at[1] for one in chart.series}
        assert (heights["c"] < heights["b"]) == higher  # better ones are above
        middle = {one.marker.name: one.at[0] for one in chart.series}["b"]
        assert middle == pytest.approx((62 + 400) / 2, abs=0.1)  # logarithmic

    def test_one_method_has_no_cost_to_compare(self):
        assert draw_cost("", {"a": 1.0}, {"a": 1.0, "b": 2.0}, MARKERS, "q", True) is None


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    nets = {"a": GapNet(), "b": GapNet()}
    found = xcam.evaluate(
        nets, Pictures(3), ["gradcam"], ["sparseness"], out=folder, save_maps=True, seed=3
    )
    found.to_html(folder / "page.html", Pictures(3))
    return folder


def test_page_of_two_models_has_a_section_each(evaluated):
    page = read(evaluated / "page.html")
    assert [one["id"] for one in page.find("section")] == ["model-1", "model-2"]
    # Three images and three controls beside the method and the image, twice a model.
    assert len(page.find("img")) == 2 * 2 * 3 * 5


def test_call_in_python_makes_the_same_rows(evaluated):
    run = page_facts.read_run(evaluated)
    results = Results(evaluated)
    controls = {"random", "center_gaussian", "sobel"}
    call = page_facts.make_call(run, results.metrics, controls)
    assert call in read(evaluated / "page.html").texts
    call = call.replace("'a': …, 'b': …", "'a': GapNet(), 'b': GapNet()")
    names = {"GapNet": GapNet, "data": Pictures(3)}
    exec(call, names)
    pd.testing.assert_frame_equal(names["results"].table(), results.table())


@needs_browser
def test_browser_sorts_sets_apart_and_shows_pictures(path):
    shown, log = open_page(path)
    assert log == []
    assert "owned</title>" not in shown
    script = """
      await Promise.all([...document.images].map((one) => one.decode()));
      const table = document.querySelector("table.sortable");
      const list = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent[0]);
      const heads = [...table.tHead.rows[0].cells], orders = [];
      for (const name of ["plain", "plain", "area", "method", "mean rank"]) {
        const head = heads.find((one) => one.textContent.startsWith(name));
        head.querySelector("button").click();
        orders.push([list().join(""), head.getAttribute("aria-sort")]);
      }
      const count = () => document.querySelectorAll(".chosen .on").length;
      const chip = document.querySelector(".legend button");
      chip.click();
      const chosen = count();
      chip.click();
      return [orders, chosen, count(), table.querySelectorAll("[aria-sort]").length,
              document.documentElement.scrollWidth <= window.innerWidth];
    """
    orders, chosen, none, sorted_columns, fits = ask(path, script)
    assert orders == [
        ["123", "descending"],  # the empty cell of random is last, either way
        ["213", "ascending"],
        ["213", "ascending"],
        ["123", "ascending"],
        ["123", "ascending"],
    ]
    assert (none, sorted_columns, fits) == (0, 1, True)
    assert chosen >= 3
