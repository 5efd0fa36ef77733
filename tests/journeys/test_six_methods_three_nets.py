"""A researcher compares six methods on three nets for a paper, and trains one of them first."""

import pandas as pd
import pytest
import torch
from data_files import write_mnist
from PIL import Image
from shell import fail, type_in

import xcam

RECIPE = """
[model]
name = "xcam:simple_cnn"
num_classes = 10
in_channels = 1
input_size = 28

[data]
name = "mnist"
train = []
test = []

[fit]
epochs = 1
batch_size = 8
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Data, a recipe, and a folder of photographs in two classes."""
    monkeypatch.chdir(tmp_path)
    write_mnist(tmp_path / "data")
    (tmp_path / "small.toml").write_text(RECIPE)
    third = xcam.models.load("xcam:gap_net", num_classes=2, seed=9)
    xcam.save(third, tmp_path / "third.safetensors")
    generator = torch.Generator().manual_seed(0)
    for number in range(8):
        path = tmp_path / "photos" / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(path)
    return tmp_path


METHODS = "gradcam,layercam,hirescam,saliency,input_x_gradient,rise(n_masks=4)"


def test_researcher_compares_methods_on_nets(here):
    assert "average_drop" in type_in("xcam metrics")
    nets = " ".join(
        f"--model {name}={net}" for name, net in
        (("a", "xcam:small_cnn"), ("b", "xcam:gap_net"), ("c", "third.safetensors"))
    )  # fmt: skip
    asked = (
        f"--data photos {nets} --weights none --set num_classes=2 --size 16 "
        f'--methods "{METHODS}" --metrics sparseness,average_drop --target label --out runs/a'
    )
    said = fail(f"xcam evaluate {asked.replace('gap_net', 'linear_net')}", 2)
    assert said.startswith("xcam: ")
    assert "mat1 and mat2" in said  # it is made for images of 8 pixels
    said = fail(f"xcam evaluate {asked.replace('gradcam,', 'gradcan,', 1)}", 2)
    assert said.startswith("xcam: no method 'gradcan': did you mean gradcam")
    shown = type_in(f"xcam evaluate {asked} --quiet")
    for name in "abc":
        assert f"\n{name}\n" in f"\n{shown}"
    assert "6 methods" not in shown  # with the controls there are nine
    assert "3 models, 9 methods, 2 metrics, 8 rows each" in shown

    latex = type_in(f"xcam evaluate {asked} --quiet --latex")
    assert latex.startswith(r"\begin{tabular}")
    table = type_in(f"xcam evaluate {asked} --quiet --csv").splitlines()
    assert len(table) == 1 + 3 * 9 * 2
    pairs = type_in("xcam compare runs/a --reference random --csv").splitlines()
    assert pairs[0].startswith("model,metric,a,b,")
    assert "by model" not in type_in("xcam compare runs/a --by model")


def test_researcher_trains_a_net_and_scores_it(here):
    said = fail("xcam fit --recipe small.toml --root data --out run --set schedule.gamma=0.1", 2)
    assert "set schedule.name first" in said
    shown = type_in("xcam fit --recipe small.toml --root data --out run --set seed=3")
    assert shown.splitlines()[-1] == "net -> run/last.safetensors"
    assert len(pd.read_csv(here / "run" / "log.csv")) == 1
    shown = type_in(
        "xcam evaluate --data mnist --root data --model net=run/last.safetensors --methods gradcam "
        "--metrics sparseness --target label --no-controls --quiet"
    )
    assert shown.splitlines()[1].split()[0] == "gradcam"
