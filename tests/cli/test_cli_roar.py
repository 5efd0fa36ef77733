"""`xcam roar`, by a recipe on a few digits."""

import pandas as pd
import pytest
from commands import refused, run
from small_mnist import write_mnist

import xcam

RECIPE = """
title = "Digits"

[model]
name = "xcam:cifar_resnet"
depth = 8
in_channels = 1
num_classes = 10

[data]
name = "mnist"
validation = { fraction = 0.2, seed = 1 }

[fit]
epochs = 2
batch_size = 16
optimizer = { name = "SGD", lr = 0.05, momentum = 0.9 }
seed = 3
keep_every = 1
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    root = tmp_path_factory.mktemp("roar")
    write_mnist(root, train=40, test=10)
    (root / "digits.toml").write_text(RECIPE)
    net = xcam.models.load("xcam:cifar_resnet", depth=8, in_channels=1, num_classes=10)
    xcam.save(net, root / "net.safetensors")
    return root


def words(root, out, *others, model=None):
    return ["roar", "--recipe", root / "digits.toml", "--root", root, "--out", out, "--model",
            model or root / "net.safetensors", "--fractions", "0.5", "--repeats", "1", "--set",
            "epochs=1", "--no-controls", *others]  # fmt: skip


def test_prints_the_estimate_then_the_table(given, tmp_path, monkeypatch):
    out = tmp_path / "run"
    files = ["--csv", tmp_path / "rows.csv", "--figure", tmp_path / "curves.png"]
    result = run(*words(given, out, "--methods", "gradcam", "--mode", "both", *files))
    assert result.exit_code == 0, result.output
    first, *table = result.stdout.splitlines()
    assert first.startswith("4 trainings of 4: about 0:00:")
    assert any("gradcam" in line for line in table)
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert len(rows) == 4
    assert set(rows["seed"]) == {3}
    assert (tmp_path / "curves.png").exists()
    assert set(rows["model"].dropna()) == {f"{given.name}/net.safetensors"}
    monkeypatch.chdir(given)  # the same model, by another path
    again = run(*words(given, out, "--methods", "gradcam", model="net.safetensors"))
    assert again.stdout.startswith("all trainings are done")


def test_white_box_keeps_a_share_and_leaves_test_images_alone(given, tmp_path):
    changes = ["--preset", "whitebox", "--mode", "keep", "--fractions", "0.1"]
    result = run(*words(given, tmp_path / "run", *changes, "--csv", tmp_path / "rows.csv"))
    assert result.exit_code == 0, result.output
    row = pd.read_csv(tmp_path / "rows.csv").iloc[0]
    assert (row["mode"], row["removed"], row["elements"]) == ("keep", 784 - 79, 784)
    assert row["correct"] == row["correct_unmasked"]


def test_dry_run_and_shards(given, tmp_path):
    result = run(*words(given, tmp_path / "run", "--dry-run", "--shard", "2/2"))
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("1 training of 1: about")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--mode", "drop"], "--mode takes remove, keep, both"),
        (["--fractions", "half"], "--fractions takes numbers"),
        (["--shard", "0/2"], "shard must be i/n"),
        (["--preset", "roar"], "preset must be one of"),
    ],
)
def test_refusals(given, tmp_path, others, message):
    assert message in refused(*words(given, tmp_path, *others))
