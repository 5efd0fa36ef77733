"""Several processes share a training and end where one ends."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from launches import TWO, launched
from safetensors.torch import load_file
from several import TRAININGS, train
from trainings import assert_close, assert_same_bits, log

# What is launched has 240 seconds, and what it is compared with takes some, too.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What two launched processes left."""
    out = tmp_path_factory.mktemp("shared")
    home = tmp_path_factory.mktemp("home")
    launched(home, *TWO, Path(__file__).parents[1] / "several.py", out, *TRAININGS)
    return out


@pytest.mark.parametrize("name", sorted(TRAININGS.keys() - {"norms"}))
def test_two_processes_end_where_one_ends(shared, tmp_path, name):
    train(tmp_path, name)
    for file in ("best.safetensors", "last.safetensors"):
        assert_close(load_file(shared / name / file), load_file(tmp_path / name / file), 1e-5)
    pd.testing.assert_frame_equal(log(shared / name), log(tmp_path / name), rtol=1e-4)
    assert (shared / name / "test.csv").read_text() == (tmp_path / name / "test.csv").read_text()


def test_each_process_and_part_draws_its_own(shared):
    one, other = (torch.load(shared / f"drawn-{rank}.pt") for rank in (0, 1))
    assert min(len(one), len(other)) > 2 * 3  # of 2 epochs of 3 steps some have two parts
    assert len({*one, *other}) == len(one) + len(other)


@pytest.mark.parametrize("name", TRAININGS)
def test_both_processes_hold_the_same_net(shared, name):
    """Also with batch norm, whose statistics are of each process's own images until then."""
    one, other = (torch.load(shared / f"{name}-{rank}.pt") for rank in (0, 1))
    assert_same_bits(one, other)
    kept = "last" if name == "norms" else "best"
    assert_same_bits(one, load_file(shared / name / f"{kept}.safetensors"))
