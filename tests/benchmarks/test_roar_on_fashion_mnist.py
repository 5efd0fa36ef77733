"""The script of the study with ROAR runs with tiny sizes, so that its faults show here."""

import re
import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats
from small_mnist import write_mnist

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "roar_on_fashion_mnist.py"
SCORES = pd.DataFrame([[0.1, 0.3], [0.2, 0.2], [0.4, 0.4], [0.3, 0.5]], index=["a", "b", "c", "d"])


@pytest.fixture
def script(monkeypatch):
    found = runpy.run_path(str(SCRIPT))
    tiny = {
        "PLAIN": ("gradcam",),
        "HEADS": ("calm",),
        "FRACTIONS": (0.5,),
        "RESAMPLES": 30,
        "BATCH": 4,
    }
    for name, value in tiny.items():
        monkeypatch.setitem(found["main"].__globals__, name, value)
    return found


def run(script, monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["script", *map(str, words)])
    script["main"]()
    return capsys.readouterr().out


def test_trains_and_reports(script, tmp_path, monkeypatch, capsys):
    (write_mnist(tmp_path, train=20, test=20) / "MNIST").rename(tmp_path / "FashionMNIST")
    sizes = ["--images", 20, "--test-images", 20, "--epochs", 1, "--repeats", 2, "--masks", 2]
    words = [tmp_path, tmp_path / "out", *sizes, "--figures", tmp_path]
    with monkeypatch.context() as patch:
        patch.setitem(script["main"].__globals__, "report", lambda arguments: None)
        run(script, monkeypatch, capsys, *words)
    printed = run(script, monkeypatch, capsys, *words, "--report")
    for line in ("masked and unmasked test images", "masked and masked", "the first minus"):
        assert re.search(rf"^{line}[^:]*: \S+ \[\S+, \S+\]$", printed, re.MULTILINE), printed
    rows = pd.read_csv(tmp_path / "roar_fashion_mnist.csv")
    assert len(rows) == 2 * (4 * 2 + 2)  # repeats; curves, modes, ends
    assert (tmp_path / "roar_fashion_mnist.png").exists()


def test_interval_of_kendalls_tau(script):
    between = script["kendall_between_repeats"](SCORES.to_numpy(), SCORES.to_numpy())
    assert between == pytest.approx(stats.kendalltau(SCORES[0], SCORES[1]).statistic)
    other = SCORES.set_axis(list("acbd")).sample(frac=1, random_state=0)
    shown = script["estimate"](script["kendall"], SCORES, other)
    value, low, high = map(float, re.findall(r"-?[\d.]+", shown))
    expected = stats.kendalltau(SCORES.mean(axis=1), other.loc[SCORES.index].mean(axis=1)).statistic
    assert value == pytest.approx(expected, abs=0.005)
    assert low < value < high
    assert script["estimate"](script["kendall"], SCORES, SCORES) == "1.00 [1.00, 1.00]"
