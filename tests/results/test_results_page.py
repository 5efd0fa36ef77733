"""The tables on the page of results are those of the committed values; their benchmark runs."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch

import xcam

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "numbers" / "results.md").read_text("utf-8")
FIGURES = ROOT / "docs" / "figures"
CUES = pd.read_csv(FIGURES / "attention_on_cues.csv")
FASHION = pd.read_csv(FIGURES / "fashion_mnist_lcam.csv")


def lines(heading):
    """The columns and the lines of the first table below a heading."""
    text = PAGE[PAGE.index(f"{heading}\n") :]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0]
    plain = table.replace("`", "").replace("L-CAM", "lcam")
    columns, _, *rows = ([c.strip() for c in line.split("|")[1:-1]] for line in plain.splitlines())
    return columns, rows


def numbers(cell):
    """Those in a cell, and half a unit of their last digit."""
    found = re.findall(r"[+-]?\d+(?:\.\d+)?", cell.replace("–", " ").replace("−", "-"))
    digits = max(len(number.partition(".")[2]) for number in found)
    return [float(number) for number in found], 0.51 * 10**-digits


def assert_says(cell, values):
    """Mean, lowest and highest of three seeds, or the mean alone where all look the same."""
    said, half = numbers(cell)
    assert len(values) == 3
    assert len(said) in (1, 3)
    assert said == pytest.approx([values.mean(), values.min(), values.max()][: len(said)], abs=half)
    if len(said) == 1:
        assert values.max() - values.min() <= 2 * half


@pytest.mark.parametrize(
    ("heading", "images"),
    [("### One disc decides", "one cue"), ("### Two discs, and a map for either", "two cues")],
)
def test_tables_of_the_cues(heading, images):
    columns, rows = lines(heading)
    shown = CUES[(CUES["images"] == images) & (CUES["judge"] == "plain") & CUES["minus"].isna()]
    assert {row[0] for row in rows} == set(shown["method"].dropna())
    for method, *cells in rows:
        for metric, cell in zip(columns[1:], cells, strict=True):
            found = shown[(shown["method"] == method) & (shown["metric"] == metric)]
            assert_says(cell, found["value"])


def test_table_of_nets_that_judge_their_own_maps():
    columns, rows = lines("Scored by the net that they are of, beside Grad-CAM on the same net:")
    shown = CUES[(CUES["images"] == "one cue") & CUES["minus"].isna()]
    assert len(rows) == 4
    for names, *cells in rows:
        judge, method = names.split(", ")
        part = shown[(shown["judge"] == judge) & (shown["method"] == method)].set_index("metric")
        for metric, cell in zip(columns[1:], cells, strict=True):
            assert_says(cell, part.loc[metric, "value"])


def test_table_of_what_training_gives():
    columns, rows = lines("### What training gives a map")
    shown = CUES[(CUES["images"] == "one cue") & (CUES["metric"] == "energy")]
    for method, less, *cells in rows:
        other = f"lcam, {less}" if method.startswith("lcam") else f"{method}, {less}"
        pair = shown[(shown["method"] == method) & (shown["minus"] == other)].set_index("seed")
        for seed, cell in zip(columns[2:], cells, strict=True):
            said, half = numbers(cell)
            row = pair.loc[int(seed.removeprefix("seed "))]
            assert said == pytest.approx([row["value"], row["low"], row["high"]], abs=half)


def test_accuracies_have_intervals():
    found = CUES[CUES["metric"].str.startswith("accuracy") & CUES["minus"].isna()]
    assert found[["value", "low", "high", "n"]].notna().all(axis=None)
    assert (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()


def test_what_is_lost_and_why():
    lost = pd.read_csv(FIGURES / "attention_on_cues_lost.csv", dtype=str).fillna("")
    counted = {
        head: [len(cell.split(", ")) if cell else 0 for cell in part["classes without maps"]]
        for head, part in lost.groupby("head")
    }
    assert counted["lcam_img"] == [1, 2, 3]
    assert counted["lcam_img, zero_init"] == [0, 1, 1]
    assert counted["lcam_fm"] == counted["lcam_fm, zero_init"] == [0, 0, 1]
    evidence = pd.read_csv(FIGURES / "attention_on_cues_evidence.csv").set_index(["seed", "class"])
    on = evidence["on the disc"].sort_values()
    assert on.index[0] == (2, 4)
    assert on.to_list()[:3] == [0.35, 0.63, 0.93]
    assert evidence.loc[(2, 4), "beside it"] == 0.98
    page = " ".join(PAGE.split())
    for sentence in (
        "**L-CAM-Img loses classes,** of which every map is negative everywhere: one, two and",
        "starts at 1/2, and loses none, one and one;",
        "on the disc alone it gives class 4 0.35, from those beside it 0.98.",
        "0.93 or more, and 0.63 for class 7 with seed 1, which is not lost.",
    ):
        assert sentence in page


def test_table_of_fashion_mnist():
    columns, rows = lines("## L-CAM's table on Fashion-MNIST")
    shares = ("100%", "50%", "15%")
    metrics = [f"{kind}({share})" for share in shares for kind in ("AD", "IC", "top-1")]
    assert len(columns) == 2 + len(metrics)  # the first names the method, the last one the passes
    assert len(rows) == FASHION["method"].nunique()
    for method, *cells in rows:
        part = FASHION[FASHION["method"] == method.partition(",")[0]]
        for metric, cell in zip(metrics, cells[:-1], strict=True):
            factor = 100 if metric.startswith("top") else 1
            assert_says(cell, part[part["metric"] == metric]["value"] * factor)


def test_table_of_maps_that_are_positive_nowhere():
    _, rows = lines("section above, of which AD, with its min-max, says nothing:")
    committed = pd.read_csv(FIGURES / "fashion_mnist_lcam_dark.csv", dtype=str)
    assert rows == committed.to_numpy().tolist()


@pytest.fixture(scope="module")
def cues():
    """The benchmark of planted cues, and nets as they are drawn by the names that it gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import attention_on_cues as benchmark
    plain = benchmark.new_net(0)
    names = {"lficam": "lficam", "abn": "abn", **benchmark.HEADS}
    nets = {label: benchmark.new_head(plain, name, 0) for label, name in names.items()}
    return benchmark, {**nets, "plain": plain, benchmark.POSITIVE: nets["abn"]}


def test_evidence_of_everything_is_the_nets_own_answer(cues):
    benchmark, nets = cues
    images, labels, _ = benchmark.stacked(benchmark.drawn(16, 0))
    everywhere = torch.ones(len(images), *images.shape[2:], dtype=torch.bool)
    data = list(zip(images, labels.tolist(), everywhere, strict=True))
    found = list(benchmark.evidence(nets, data))
    with torch.no_grad():
        odds = nets["plain"](images).softmax(1)
    own = [float(odds[labels == k, k].mean()) for k in range(8)]
    assert [row["on the disc"] for row in found] == pytest.approx(own, abs=1e-6)


def test_other_parts_of_the_benchmark_run(cues):
    benchmark, nets = cues
    one, two = benchmark.drawn(16, 0), benchmark.drawn(8, 1, cues=2)
    assert [row["head"] for row in benchmark.lost(nets, one)] == list(benchmark.HEADS)
    assert [row["net"] for row in benchmark.polarity(nets, one)] == ["abn", benchmark.POSITIVE]
    preferences = pd.DataFrame(benchmark.preferences(nets, two, 0)).set_index("method")["value"]
    assert preferences.between(0, 1).all()
    assert preferences["center_gaussian"] == pytest.approx(0.5)  # of either disc in turn
    equal = xcam.explain(benchmark.equal_weights(nets["lficam"]), benchmark.stacked(one)[0])
    assert equal.maps.isfinite().all()


def read_calm():
    """The measured values of CALM on cues: by judge, line and metric, and the tables' lines."""
    values = pd.read_csv(FIGURES / "calm_on_cues.csv")
    values["line"] = values["net"].fillna("") + values["method"].fillna("")
    section = PAGE.partition("## CALM on planted cues")[2].partition("\n## ")[0]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    nets = {"`em`, `ml`": "em", "`em`, lagged": "em, lagged", "`cam`": "cam", "*plain*": "plain"}
    found, net = [], ""
    for table in tables:
        rows = []
        for line in table.splitlines()[2:]:
            first, shown, *cells = (cell.strip() for cell in line[1:-1].split("|"))
            net = nets.get(first, net)
            method = {"CALM's": "calm", "CAM": "calm", "Grad-CAM": "gradcam"}.get(
                shown, shown[1:-1]
            )
            rows.append((net, method, cells))
        found.append(rows)
    return values, found


def test_calm_table_holds_the_measured_values():
    values, (rows, _) = read_calm()
    metrics = ["energy", "pointing game", "PxAP", "MaxBoxAccV2", "remove and classify"]
    assert len(rows) == 7
    for net, method, (accuracy, *scores, by_plain) in rows:
        own = values[values["judge"] == net]
        if accuracy:
            assert_says(accuracy, own[own["metric"] == "accuracy"]["value"])
        for metric, cell in zip(metrics, scores, strict=True):
            chosen = own[(own["metric"] == metric) & (own["line"] == method)]
            assert_says(cell, chosen["value"])
        if by_plain:
            line = net if method == "calm" else method
            plain = values[(values["judge"] == "plain") & (values["line"] == line)]
            assert_says(by_plain, plain[plain["metric"] == "remove and classify"]["value"])


def test_calm_counterfactuals_are_the_measured_ones():
    values, (_, rows) = read_calm()
    assert len(rows) == 6
    for net, method, cells in rows:
        part = values[values["line"] == net + method]
        judges = [("counterfactual", net), ("turned", net), ("turned", "plain")]
        for (metric, judge), cell in zip(judges, cells, strict=True):
            chosen = part[(part["metric"] == metric) & (part["judge"] == judge)]
            assert_says(cell, chosen["value"])


def test_calm_em_and_ml_are_one_training():
    values, _ = read_calm()
    keys = ["seed", "method", "metric"]
    em, ml = (
        values[values["judge"] == name].set_index(keys)["value"].sort_index()
        for name in ("em", "ml")
    )
    shared = em.index.intersection(ml.index)
    assert len(shared) > 30
    assert em[shared].equals(ml[shared])
    odds = values[(values["judge"] == "ml") & (values["metric"] == "difference of odds")]["value"]
    assert odds.max() < 0.005


def test_selectivity_is_that_of_its_curves():
    curves = pd.read_csv(FIGURES / "fashion_mnist_selectivity.csv").set_index(["method", "rule"])
    columns, rows = lines("## Selectivity: White Box's rule, and one that removes nothing twice")
    method = ""
    for name, rule, area, *points in rows:
        method = name or method
        y = curves.loc[(method, rule)].set_index("x")["y"]
        (said, low, high), half = numbers(area)
        assert said == pytest.approx((y.sum() - (y[0] + y[50]) / 2) / 50, abs=half)
        assert low < said < high
        shown = [numbers(point)[0][0] for point in points]
        assert shown == pytest.approx([y[int(step)] for step in columns[3:]], abs=0.0051)
    assert len(rows) == len(curves.index.unique())
