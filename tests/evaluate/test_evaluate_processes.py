"""Processes that share an evaluation write the same rows as a single one."""

import numpy as np
import pytest
from evaluations import Pictures, assert_same_rows, parts, rows
from launches import LAUNCH
from launches import launched as launch
from PIL import Image
from torch.utils.data import DataLoader
from typer.testing import CliRunner

import xcam
from xcam import cli
from xcam._evaluate import verb
from xcam.models.toy import GapNet
from xcam.runs.processes import Processes, get_processes


@pytest.fixture
def pictures(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(7):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def command(pictures):
    return [
        "--data", str(pictures), "--size", "16", "--model", "xcam:gap_net", "--weights", "none",
        "--methods", "gradcam,rise(n_masks=5)", "--metrics", "deletion,sparseness", "--load", "1",
        "--batch-size", "4", "--out",
    ]  # fmt: skip


@pytest.mark.timeout(600)
def test_two_launched_processes_give_the_rows_of_one(command, tmp_path):
    told = launch(tmp_path / "home", *LAUNCH[2:], *command, tmp_path / "several")
    alone = CliRunner().invoke(cli.app, ["evaluate", *command, str(tmp_path / "one")])
    assert alone.exit_code == 0, alone.output
    assert told == alone.stdout  # the table, once
    assert parts(tmp_path / "several") == parts(tmp_path / "one")
    assert_same_rows(rows(tmp_path / "several"), rows(tmp_path / "one"))


def evaluate(monkeypatch, team, out):
    monkeypatch.setattr(verb, "get_processes", lambda: team)
    data = Pictures(10)
    xcam.evaluate(GapNet(), DataLoader(data, batch_size=2), "gradcam", "sparseness", out=out)
    return sorted(set(data.loaded) - {0, 9})  # which all of them look at


def test_each_process_takes_its_share_of_the_missing_batches(monkeypatch, tmp_path):
    """Run one after the other, as if the second had started before the first wrote a row."""
    met = []

    def second(out):
        if not met:  # the main process has made the folder, and waits
            met.append(1)
            team = Processes(rank=1, count=2)
            met.append(evaluate(monkeypatch, team, out))

    first = evaluate(
        monkeypatch, Processes(rank=0, count=2, wait=lambda: second(tmp_path / "a")), tmp_path / "a"
    )
    # The second has finished its share by now, so that the first shares what it finds left.
    assert met[1] == [2, 3, 6, 7]
    assert first == [1, 8] or first == [1, 4, 5, 8]
    evaluate(monkeypatch, Processes(), tmp_path / "a")
    evaluate(monkeypatch, Processes(), tmp_path / "b")
    assert_same_rows(rows(tmp_path / "a"), rows(tmp_path / "b"))


def test_several_processes_need_a_folder(monkeypatch):
    with pytest.raises(ValueError, match=r"2 processes need a folder to share; give out="):
        evaluate(monkeypatch, Processes(count=2), None)


def test_single_process_is_the_main_process():
    team = get_processes()
    assert (team.rank, team.count, team.is_main, team.device) == (0, 1, True, "cpu")
    assert not Processes(rank=1, count=2).is_main
