"""The results of retraining: tables, forms and pictures of outcomes that are written by hand."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from xcam._roar.plan import Curve, Outcome, Retraining
from xcam.results import RetrainingResults

OURS = Curve("net", "ours", "ours", control=False)
RANDOM = Curve(None, "random", "random", control=True)


def write(folder, curve, mode, fraction, counts):
    """Write an outcome a repeat: so many of 100 test images are right; None failed."""
    for repeat, correct in enumerate(counts):
        retraining = Retraining(curve, mode, fraction, repeat)
        error = "it diverged" if correct is None else None
        outcome = Outcome(repeat, 0, 64, 100, correct, correct, 1.0, 1, error)
        path = retraining.locate(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(outcome.encode(retraining))


@pytest.fixture
def results(tmp_path):
    write(tmp_path, None, "remove", 0.0, [90, 94])
    write(tmp_path, None, "remove", 1.0, [10, 10])
    write(tmp_path, OURS, "remove", 0.3, [60, 62])
    write(tmp_path, OURS, "remove", 0.7, [30, 40])
    write(tmp_path, OURS, "keep", 0.3, [80, 84])
    write(tmp_path, OURS, "keep", 0.7, [85, 81])
    write(tmp_path, RANDOM, "remove", 0.3, [88, None])
    return RetrainingResults(tmp_path)


def test_diff_roar_is_of_the_same_fraction_and_repeat(results):
    table = results.diff_roar()
    assert table["method"].unique().tolist() == ["ours"]
    pairs = {0.3: [85 - 60, 81 - 62], 0.7: [80 - 30, 84 - 40]}
    assert table["fraction"].tolist() == list(pairs)
    for line in table.to_dict("records"):
        values = np.array(pairs[line["fraction"]]) / 100
        assert line["value"] == pytest.approx(values.mean())
        assert line["std"] == pytest.approx(values.std(ddof=1))


def test_diff_roar_of_thirds(tmp_path):
    write(tmp_path, OURS, "remove", round(1 / 3, 15), [20])
    write(tmp_path, OURS, "keep", round(2 / 3, 15), [50])
    (line,) = RetrainingResults(tmp_path).diff_roar().to_dict("records")
    assert line["value"] == pytest.approx(0.3)
    assert line["fraction"] == pytest.approx(1 / 3, abs=1e-15)


def test_fractions_that_are_close_stay_apart(tmp_path):
    write(tmp_path, OURS, "remove", 0.3, [20])
    write(tmp_path, OURS, "remove", 0.30000001, [50])
    assert RetrainingResults(tmp_path).table()["value"].tolist() == [0.2, 0.5]


def test_latex_holds_values_and_intervals_in_percent(results):
    text = results.to_latex()
    half = 100 * stats.t.ppf(0.975, 1) * np.std([0.6, 0.62], ddof=1) / 2**0.5
    cells = rf"ours & 92.0 .* & 61.0 {{\\scriptsize \$\\pm\$ {half:.1f}}} & 35.0 .* & 10.0 "
    assert re.search(cells, text)
    assert "random & 92.0 " in text
    assert re.search(r"random & .* & 88.0 & -- & 10.0 ", text)
    assert text.index("net: keep") < text.index("net: remove")


def test_print_and_html_hold_the_means(results):
    shown = str(results).splitlines()
    assert shown[0].split() == ["fraction", "0.0", "0.3", "0.7", "1.0"]
    assert shown[2].split() == ["net", "keep", "ours", "0.100", "0.820", "0.830", "0.920"]
    assert shown[3].split() == ["remove", "ours", "0.920", "0.610", "0.350", "0.100"]
    assert shown[4].split() == ["random", "0.920", "0.880", "NaN", "0.100"]
    assert shown[5] == "14 trainings, 2 repeats, 1 errors; the first: it diverged"
    assert "<td>0.610</td>" in results._repr_html_()


def test_a_control_is_told_from_a_method_of_its_name(tmp_path):
    write(tmp_path, Curve("net", "random", "random", control=False), "remove", 0.5, [70])
    write(tmp_path, RANDOM, "remove", 0.5, [50])
    results = RetrainingResults(tmp_path)
    for text in (str(results), results.to_latex()):
        assert re.search(r"random\s.*0?70", text)
        assert re.search(r"random \(control\)\s.*0?50", text)


def test_the_picture_names_its_axes_and_stays_within_accuracies(results, tmp_path):
    figure = results.plot(tmp_path / "curves.png")
    keep, remove = figure.axes[:2]
    assert keep.get_ylabel() == "accuracy"
    assert keep.get_xlabel() == "fraction removed or kept"
    assert [axes.get_title() for axes in (keep, remove)] == ["keep", "remove"]
    line = next(line for line in remove.lines if len(line.get_xdata()) == 4)
    assert line.get_xdata().tolist() == [0, 0.3, 0.7, 1]
    assert line.get_ydata().tolist() == pytest.approx([0.92, 0.61, 0.35, 0.1])
    bands = [band for axes in (keep, remove) for band in axes.collections]
    heights = np.concatenate([path.vertices[:, 1] for band in bands for path in band.get_paths()])
    assert (heights.min(), heights.max()) == (0, 1)  # ±0.6 at a fraction of 0.7
    low = results.table().set_index(["method", "fraction"]).loc[("ours", 0.7), "low"]
    assert low.min() < 0
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_csv_holds_every_training(results, tmp_path):
    results.to_csv(tmp_path / "rows.csv")
    rows = pd.read_csv(tmp_path / "rows.csv").set_index(["method", "mode", "fraction", "repeat"])
    assert rows.loc[("ours", "keep", 0.7, 1), "accuracy"] == 0.81
    assert rows.loc[("random", "remove", 0.3, 1), "error"] == "it diverged"
    assert len(rows) == 14


def test_without_a_training_there_is_nothing_to_show(tmp_path):
    results = RetrainingResults(tmp_path)
    assert str(results) == "0 trainings, 0 repeats, 0 errors"
    assert results._repr_html_().strip() == "<p>0 trainings, 0 repeats, 0 errors</p>"
    with pytest.raises(ValueError, match=r"nothing to draw: no curve in .* call roar"):
        results.plot()
    with pytest.raises(FileNotFoundError, match=r"no folder at .*/x'; give the `out`"):
        RetrainingResults(tmp_path / "x")


def test_trainings_that_all_failed_are_shown_as_such(tmp_path):
    write(tmp_path, OURS, "remove", 0.5, [None])
    write(tmp_path, None, "remove", 0.0, [None])
    shown = str(RetrainingResults(tmp_path))
    assert "Empty" not in shown
    assert re.search(r"net +remove ours +NaN +NaN", shown)
    assert shown.endswith("2 trainings, 1 repeats, 2 errors; the first: it diverged")
