"""Several processes share a training and end where one ends; what they print, one prints."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from launches import launched
from retrainings import lines, roar
from safetensors.torch import load_file
from several import TRAININGS, train
from small_mnist import RECIPE, write_mnist
from trainings import assert_close, assert_same_bits, log

import xcam

# What is launched has 240 seconds, and what it is compared with takes some, too.
pytestmark = pytest.mark.timeout(600)


CONFIG = """
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
num_processes: 2
"""


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """What two processes left, and what they printed; launched as accelerate's config says."""
    out, home = tmp_path_factory.mktemp("shared"), tmp_path_factory.mktemp("home")
    (home / "two.yaml").write_text(CONFIG)
    (home / "digits.toml").write_text(RECIPE)
    command = ["fit", "--recipe", home / "digits.toml", "--root", write_mnist(home / "digits")]
    command += ["--out", out / "digits", "--set", "epochs=1"]
    script = Path(__file__).parents[1] / "several.py"
    printed = launched(home, "--config_file", home / "two.yaml", script, out, *TRAININGS, *command)
    return out, printed.splitlines()


@pytest.fixture(scope="module")
def shared(launch):
    return launch[0]


@pytest.mark.parametrize("name", sorted(TRAININGS.keys() - {"norms"}))
def test_two_processes_end_where_one_ends(shared, tmp_path, name):
    train(tmp_path, name)
    for file in ("best.safetensors", "last.safetensors"):
        assert_close(load_file(shared / name / file), load_file(tmp_path / name / file), 1e-5)
    pd.testing.assert_frame_equal(log(shared / name), log(tmp_path / name), rtol=1e-4)
    assert ("validation_map" in log(shared / name)) == (name == "labels")
    assert (shared / name / "test.csv").read_text() == (tmp_path / name / "test.csv").read_text()


def test_each_process_and_part_draws_its_own(shared):
    one, other = (torch.load(shared / f"drawn-{rank}.pt") for rank in (0, 1))
    assert min(len(one), len(other)) > 2 * 3  # of 2 epochs of 3 steps some have two parts
    assert len({*one, *other}) == len(one) + len(other)


def test_two_processes_share_the_retrainings_of_roar(shared):
    found = lines(xcam.RetrainingResults(shared / "roar"))
    pd.testing.assert_frame_equal(found, lines(roar(repeats=2)))
    assert not list((shared / "roar").rglob("*.lock"))


def test_launched_command_prints_once(launch):
    out, printed = launch
    start = next(number for number, line in enumerate(printed) if line.startswith("    class"))
    *table, last = printed[start:]
    assert table == pd.read_csv(out / "digits" / "test.csv").to_string(index=False).splitlines()
    assert last == f"net -> {out / 'digits' / 'best.safetensors'}"


def test_dry_run_counts_the_processes_of_the_accelerate_config(launch):
    _, printed = launch
    (estimate,) = [line for line in printed if "processes" in line]
    assert estimate.endswith("for 7 images in 2 processes, measured on 7")


@pytest.mark.parametrize("name", TRAININGS)
def test_both_processes_hold_the_same_net(shared, name):
    """Also with batch norm, whose statistics are of each process's own images until then."""
    one, other = (torch.load(shared / f"{name}-{rank}.pt") for rank in (0, 1))
    assert_same_bits(one, other)
    kept = "last" if name == "norms" else "best"
    assert_same_bits(one, load_file(shared / name / f"{kept}.safetensors"))
