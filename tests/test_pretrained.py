"""The small trained nets that come with xcam."""

import numpy as np
import pytest
import torch
import train_fashion_mnist
from commands import run
from PIL import Image
from small_mnist import write_mnist

import xcam
from xcam.core import attached_method
from xcam.pretrained import FOLDER, HEADS, xcam_models

NAMES = sorted(name.removeprefix("xcam:") for name in xcam_models())


@pytest.fixture(scope="module")
def trousers():
    """A pair of trousers and a bag, each drawn as nothing but its outline filled with gray."""
    pair = torch.zeros(2, 1, 28, 28)
    pair[0, :, 2:26, 9:13] = pair[0, :, 2:26, 15:19] = pair[0, :, 2:9, 9:19] = 0.8
    pair[1, :, 12:24, 3:25] = 0.8
    pair[1, :, 6:12, 9:11] = pair[1, :, 6:12, 17:19] = pair[1, :, 6:8, 9:19] = 0.6
    return pair


@pytest.mark.parametrize("name", NAMES)
def test_net_is_small_and_trained(name, trousers):
    assert (FOLDER / f"{name}.safetensors").stat().st_size < 1_000_000
    net = xcam.models.load(f"xcam:{name}")
    assert net.input_size == (28, 28)
    with torch.no_grad():
        chosen = net(trousers).argmax(1)
    assert [net.categories[index] for index in chosen] == ["Trouser", "Bag"]


@pytest.mark.parametrize("head", HEADS)
def test_net_explains_by_its_head(head, trousers):
    explanation = xcam.explain(xcam.models.load(f"XCAM:Fashion-MNIST_{head}"), trousers)
    assert explanation.method.spec.name == head
    assert explanation.maps.flatten(1).std(1).min() > 0


@pytest.mark.parametrize("head", ["lcam_fm", "lcam_img", "castream"])
def test_frozen_classifier_is_the_plain_net(head):
    plain = xcam.models.load("xcam:fashion_mnist").model.state_dict()
    headed = xcam.models.load(f"xcam:fashion_mnist_{head}").model.classifier.state_dict()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in headed.items() if name in plain)
    assert len(headed.keys() & plain.keys()) >= len(plain) - 2


def test_net_is_saved_and_loaded(tmp_path, trousers):
    net = xcam.models.load("xcam:fashion_mnist_calm")
    xcam.save(net, tmp_path / "net.safetensors")
    again = xcam.load(tmp_path / "net.safetensors")
    assert attached_method(again) == attached_method(net)
    with torch.no_grad():
        assert torch.equal(again(trousers), net(trousers))


def test_its_weights_are_one_kind_and_its_arguments_none():
    with pytest.raises(xcam.XcamError, match="is called 'V2'; there are DEFAULT"):
        xcam.models.load("xcam:fashion_mnist", "V2")
    with pytest.raises(TypeError, match="num_classes"):
        xcam.models.load("xcam:fashion_mnist", num_classes=7)


def test_shell_explains_a_picture_by_the_head(tmp_path, trousers):
    Image.fromarray((trousers[0, 0] * 255).numpy().astype(np.uint8)).save(tmp_path / "photo.png")
    out = tmp_path / "out"
    model = "xcam:fashion_mnist_lcam_img"
    result = run("explain", tmp_path / "photo.png", "--model", model, "--out", out)
    assert result.exit_code == 0, result.output
    assert "Trouser" in result.output
    assert "lcam_img" in result.output
    assert list(out.iterdir())


def test_command_trains_and_writes_each_net(tmp_path, capsys):
    write_mnist(tmp_path / "data")
    (tmp_path / "data" / "MNIST").rename(tmp_path / "data" / "FashionMNIST")
    train_fashion_mnist.main(
        [str(tmp_path / "data"), "--out", str(tmp_path), "--images", "20", "--epochs", "1"]
    )
    assert capsys.readouterr().out.count("of the test images") == len(NAMES)
    for name in NAMES:
        net = xcam.load(tmp_path / f"{name}.safetensors")
        shipped = xcam.models.load(f"xcam:{name}")
        assert net.source == shipped.source
        assert attached_method(net) == attached_method(shipped)
