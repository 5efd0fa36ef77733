import json
import struct
import sys
from pathlib import Path

import demo
import pytest
import torch
from browser import read

import xcam

# Drawn by hand in the 224×224 input: left, top, right, bottom, in pixels.
BOXES = json.loads((Path(demo.__file__).parent / "boxes.json").read_text("utf-8"))
SEEN = {
    "cat": "Egyptian cat",
    "coffee": "espresso",
    "motorcycle": "moped",
    "rocket": "missile",
    "pavilion": "palace",
    "flower": "daisy",  # a dahlia, which ImageNet lacks
}


@pytest.fixture(scope="module")
def explanation(lite0, photographs):
    return xcam.explain(lite0, photographs)


def test_photographs_are_read_whole(photographs):
    assert photographs.shape == (6, 3, 224, 224)
    assert photographs.aminmax() == (0, 1)
    assert len(photographs.flatten(1).unique(dim=0)) == 6


def test_net_recognizes_the_photographs(explanation, lite0):
    seen = [lite0.categories[index] for index in explanation.target]
    assert dict(zip(demo.PHOTOGRAPHS, seen, strict=True)) == SEEN


@pytest.mark.parametrize("name", demo.PHOTOGRAPHS)
def test_gradcam_points_at_the_object(explanation, name):
    left, top, right, bottom = BOXES[name]["box"]
    energy = explanation.maps[list(demo.PHOTOGRAPHS).index(name)].clamp(min=0)
    inside = float(energy[top:bottom, left:right].sum() / energy.sum())
    area = (right - left) * (bottom - top) / energy.numel()
    assert inside > 1.2 * area


def test_demo_shows_at_least_ten_methods_with_valid_parameters():
    assert len(demo.METHODS) >= 10
    for name, params in demo.METHODS.items():
        assert params.keys() <= xcam.get_method(name)().parameters().keys()


def test_demo_prints_and_draws(lite0, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "METHODS", {"gradcam": {}, "saliency": {}})
    monkeypatch.setattr(demo, "METRICS", ["sparseness"])
    monkeypatch.setattr(xcam.models, "load", lambda *args, **kwargs: lite0)
    monkeypatch.setattr(sys, "argv", ["demo.py", "--out", str(tmp_path / "out")])
    demo.main()
    printed = capsys.readouterr()
    for name, seen in SEEN.items():
        (line,) = [line for line in printed.out.splitlines() if line.split()[0] == name]
        assert line.split(maxsplit=1)[1].startswith(seen)
        assert line.count("%") == 3
    assert "Grad-CAM" in printed.out
    assert "explaining: 100%" in printed.err
    width, height = struct.unpack(">II", (tmp_path / "out" / "demo.png").read_bytes()[16:24])
    assert width > 3 * 100
    assert height > 6 * 100
    page = read(tmp_path / "out" / "report.html")
    assert [row[0] for row in page.tables[1][1:]] == [
        f"{name}\n{seen}" for name, seen in SEEN.items()
    ]
    assert len(page.find("img")) == 6 * (1 + 1 + 3)  # the image, Grad-CAM and the controls


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(demo.PHOTOGRAPHS, "cat", ("skimage_gone", "cat.png"))
    with pytest.raises(SystemExit, match=r"pip install 'xcam\[demo\]'"):
        demo.find_photograph("cat")


def test_boxes_lie_in_the_image():
    assert BOXES.keys() == demo.PHOTOGRAPHS.keys()
    for name, drawn in BOXES.items():
        left, top, right, bottom = torch.tensor(drawn["box"])
        assert 0 <= left < right <= 224, name
        assert 0 <= top < bottom <= 224, name
