"""The example of coherence draws its figure of a net from a file."""

import coherence
import pytest
from PIL import Image
from small_mnist import write_mnist

import xcam

NETS = {
    "simple_cnn": {"input_size": 28},
    "ran": {"width": 4},
    "warn": {"depth": 10, "widen": 1},
}


@pytest.mark.parametrize("name", NETS)
def test_figure_is_drawn(name, tmp_path, monkeypatch, capsys):
    """A row a class; an image and four maps: one of pixels, and of three layers."""
    write_mnist(tmp_path / "data", classes=10 if name == "simple_cnn" else 2)
    net = xcam.models.load(f"xcam:{name}", weights=None, in_channels=1, **NETS[name])
    assert len(coherence.find_layers(net)) == 3
    xcam.save(net, tmp_path / "net.safetensors")
    methods = ["saliency", "conv_output"]
    monkeypatch.setattr(coherence, "METHODS", methods)
    out = tmp_path / "coherence.png"
    coherence.main(
        [str(tmp_path / "net.safetensors"), "--data", "mnist", "--root", str(tmp_path / "data"),
         "--out", str(out)]
    )  # fmt: skip
    assert capsys.readouterr().out == f"figure -> {out}\n"
    with Image.open(out) as picture:
        assert (picture.height > picture.width) == (name == "simple_cnn")
