"""The example of a training: what it leaves in its folder, and that it goes on."""

import pandas as pd
import pytest
import train_on_cues
from PIL import Image


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("cues")
    train_on_cues.main(["--out", str(out), "--images", "64", "--epochs", "1"])
    return out


def test_output_folder_holds_the_logs_and_the_curve(run):
    assert list(pd.read_csv(run / "log.csv")["epoch"]) == [1]
    assert pd.read_csv(run / "test.csv")["n"].iloc[-1] == 16
    with Image.open(run / "curve.png") as picture:
        assert len(picture.convert("L").getcolors()) > 10  # lines, not an empty sheet


def test_curve_is_redrawn_from_the_log_without_training(run):
    (run / "curve.png").unlink()
    train_on_cues.main(["--curve", str(run)])
    assert (run / "curve.png").is_file()
    assert list(pd.read_csv(run / "log.csv")["epoch"]) == [1]
