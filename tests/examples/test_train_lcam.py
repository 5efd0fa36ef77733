"""The example that trains L-CAM, on a few images."""

import re
import sys

import pytest
import torch
import train_lcam

import xcam
from xcam.methods import LCAMFm, LCAMImg


def test_hits():
    maps = torch.tensor([[[0.0, 3.0], [1.0, 2.0]], [[-1.0, -2.0], [-3.0, -4.0]]])
    found = xcam.Explanation(maps, tuple(maps.shape[1:]), None, None, LCAMFm())
    masks = torch.tensor([[[0, 1], [0, 0]], [[0, 1], [1, 1]]]).bool()
    assert train_lcam.measure_hits(found, masks) == 0.5
    assert train_lcam.measure_hits(found, ~masks) == 0.5
    assert train_lcam.measure_hits(found, masks | True) == 1


# After so few steps maps may be flat.
@pytest.mark.filterwarnings("ignore::xcam.errors.XcamWarning")
def test_it_trains_prints_and_draws(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    arguments = ["train_lcam.py", "--images", "16", "--epochs", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    train_lcam.main()
    printed = capsys.readouterr().out
    assert re.search(r"The classifier is right on \d+% of new images", printed)
    for title in ("Grad-CAM", "L-CAM-Fm", "L-CAM-Img"):
        assert re.search(rf"{title} +\d+% +\d+%\n", printed)
    assert (out / "lcam.png").read_bytes().startswith(b"\x89PNG")
    nets = [xcam.load(out / f"{name}.safetensors") for name in train_lcam.METHODS]
    kinds = (LCAMFm, LCAMImg)
    assert all(isinstance(net.method, kind) for net, kind in zip(nets, kinds, strict=True))
    images = torch.rand(2, 3, train_lcam.SIZE, train_lcam.SIZE)
    assert torch.equal(*(net(images) for net in nets))  # one classifier, frozen
