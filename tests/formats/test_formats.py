"""Files and run folders of each format that was ever released are read; see CONTRIBUTING.md."""

import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import xcam
from xcam.results import Results, RetrainingResults

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import write_examples  # noqa: E402

DATA = write_examples.DATA


def read_net(path, tmp_path):
    net = xcam.load(path)
    assert net.categories == ("left", "right")
    assert net(DATA.images).shape == (8, 2)


def read_explanation(path, tmp_path):
    explanation = xcam.load(path)
    assert explanation.maps.shape == (8, 8, 8)
    assert explanation.target.tolist() == [1] * 8
    assert explanation.method.spec.name == "gradcam"


def read_evaluation(path, tmp_path):
    (line,) = Results(path).table().to_dict("records")
    assert (line["model"], line["method"], line["n"]) == ("net", "gradcam", 8)
    maps = path / "maps" / "gradcam"
    net = write_examples.make_net()
    again = xcam.evaluate(net, DATA, (), "sparseness", maps=maps, controls=False)
    assert again.table()["value"].item() == pytest.approx(line["value"], abs=0.02)


def read_training(path, tmp_path):
    shutil.copytree(path, tmp_path / "run")
    settings = {**write_examples.FIT, "epochs": 2, "out": tmp_path / "run"}
    xcam.fit(write_examples.make_net(), DATA, **settings)
    log = pd.read_csv(tmp_path / "run" / "log.csv")
    first = pd.read_csv(path / "log.csv")
    assert log["epoch"].tolist() == [1, 2]
    assert log["train_loss"][0] == first["train_loss"][0]


def read_retraining(path, tmp_path):
    found = RetrainingResults(path).to_pandas()
    assert sorted(found["fraction"].unique()) == [0, 0.5, 1]


READERS = {
    "net": read_net,
    "explanation": read_explanation,
    "evaluation": read_evaluation,
    "training": read_training,
    "retraining": read_retraining,
}
EXAMPLES = sorted(path for path in HERE.iterdir() if path.stem.partition("-")[0] in READERS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_read(path, tmp_path):
    READERS[path.stem.partition("-")[0]](path, tmp_path)


def test_evaluation_of_an_older_format_is_read_but_does_not_go_on(tmp_path):
    shutil.copytree(HERE / "evaluation-1", tmp_path / "run")
    before = (tmp_path / "run" / "manifest.json").read_bytes()
    message = r"another evaluation \(format: 1 there, 2 now\), which this version of xcam reads"
    with pytest.raises(ValueError, match=message):
        write_examples.write_evaluation(tmp_path / "run")
    assert (tmp_path / "run" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("kind", READERS)
def test_format_that_is_written_has_an_example(kind, tmp_path):
    written = write_examples.write(kind, tmp_path)
    assert (HERE / written.name).exists(), "run `python tests/formats/write_examples.py`"


def test_weights_are_of_torch_alone():
    """What an example of a training holds is read without pickle's own objects."""
    state = torch.load(HERE / "training-2" / "training.pt", weights_only=True)
    assert state["format"] == 2
