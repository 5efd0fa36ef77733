"""The example of coherence draws its figure of a net from a file."""

import coherence
from PIL import Image
from small_mnist import write_mnist

import xcam


def test_figure_is_drawn(tmp_path, monkeypatch, capsys):
    write_mnist(tmp_path / "data")
    net = xcam.models.load("xcam:simple_cnn", weights=None, in_channels=1, input_size=28)
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
        assert picture.height > picture.width  # ten classes, an image and four maps
