"""The example that repeats RISE's numbers, on a few pictures in ImageNet's layouts."""

import numpy as np
import pandas as pd
import pytest
import reproduce_rise
import torch
from PIL import Image

import xcam
from xcam.imaging import make_fill
from xcam.models import Normalized


def save(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(params=["a folder a class", "flat"])
def root(request, tmp_path):
    for number, name in ((2, "n01440764"), (3, "n01440764"), (1, "n01443537"), (4, "n01484850")):
        folder = name if request.param == "a folder a class" else "."
        save(tmp_path / "val" / folder / f"ILSVRC2012_val_{number:08d}.JPEG", number)
    return tmp_path / "val"


@pytest.fixture
def arguments(root, tmp_path):
    small = ["--model", "xcam:small_cnn", "--weights", "none", "--masks", "12", "--workers", "0"]
    return ["--root", str(root), "--out", str(tmp_path / "out"), "--count", "3", *small]


def test_it_scores_the_first_images_and_goes_on(arguments, tmp_path, capsys, monkeypatch):
    reproduce_rise.main(arguments)
    printed = capsys.readouterr().out
    for name, value in (("deletion", "0.1048"), ("insertion", "0.7719")):
        (line,) = [line for line in printed.splitlines() if line.startswith(name)]
        assert line.endswith(f"n=3  published {value}")
    rows = xcam.Results(tmp_path / "out").to_pandas()
    numbers = sorted(int(name.split("_")[-1].removesuffix(".JPEG")) for name in set(rows["image"]))
    assert numbers == [1, 2, 3]
    assert set(rows["method"]) == {"rise"}

    monkeypatch.setattr(xcam.methods.RISE, "maps", lambda *_: pytest.fail("it explains again"))
    reproduce_rise.main(arguments)
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(("value", "verdict"), [(0.11, "agrees to 0.01"), (0.12, "DIFFERS")])
def test_all_images_are_judged(value, verdict, monkeypatch, capsys):
    class Done:
        def table(self):
            lines = {"metric": ["deletion"], "value": [value], "low": [0.1], "high": [0.13]}
            return pd.DataFrame({**lines, "n": [10_000]})

    monkeypatch.setattr(reproduce_rise, "evaluate_rise", lambda options: Done())
    reproduce_rise.main(["--root", "."])
    assert verdict in capsys.readouterr().out


def test_masked_pixels_are_zero_after_normalization():
    model = Normalized(torch.nn.Identity(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    method = reproduce_rise.make_rise(model, 5000)
    assert (method.n_masks, method.cells, method.probability) == (5000, 10, 0.1)
    assert (method.output, method.estimator, method.sampling) == ("prob", "plain", "iid")
    hidden = make_fill(torch.rand(2, 3, 8, 8), method.fill)
    assert torch.equal(model(hidden), torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("name", ["deletion", "insertion"])
def test_insertion_and_deletion_curves_have_29_points(name):
    model = xcam.models.load("xcam:gap_net")
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    metric = reproduce_rise.METRICS[name]
    scores = metric.score(model, images, xcam.explain(model, images, method="random"))
    assert scores.shape == (1, 29)
    assert metric.space == "normalized"
