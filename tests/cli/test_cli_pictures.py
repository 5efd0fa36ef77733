"""`--resize`: the pictures as the recipes test them, to the bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import refused, run
from data_files import write_mnist, write_picture
from PIL import Image

import xcam
from xcam import recipes
from xcam.cli import pictures
from xcam.cli.reading import PictureReader
from xcam.data.transforms import make_pipeline, make_size_steps
from xcam.imaging import read_pixels
from xcam.models import Normalized
from xcam.models.toy import GapNet


@pytest.fixture
def net(monkeypatch):
    net = Normalized(GapNet(), (0.5,), (0.5,), input_size=224)
    monkeypatch.setattr(xcam.models, "load", lambda name, weights=None: net)
    return net


@pytest.fixture
def photo(tmp_path):
    return write_picture(tmp_path / "photos" / "1.png", 400, 520)


def as_tested(photo):
    """What L-CAM's recipe makes of a picture."""
    steps = recipes.read("lcam_fm_vgg16")["data"]["test"]
    assert [step["name"] for step in steps] == ["Resize", "CenterCrop"]
    return make_pipeline(steps)(read_pixels(photo))


def loaded(path, net, size=None, resize="256", root=None):
    return pictures.make_loader(path, root, size, resize, {"net": net}, 1, 0).dataset


def test_folder_and_list_get_the_test_transform_of_recipes(net, photo, tmp_path):
    (tmp_path / "list.txt").write_text("1.png 3\n")
    for item in (
        loaded(photo.parent, net)[0],
        loaded(tmp_path / "list.txt", net, root=photo.parent)[0],
    ):
        assert torch.equal(item[0], as_tested(photo))
    assert not torch.equal(loaded(photo.parent, net, resize=None)[0][0], as_tested(photo))
    assert loaded(photo.parent, net, size=100)[0][0].shape == (3, 100, 100)


def test_pictures_are_resized_to_a_square(net, photo, tmp_path):
    """As in CA-Stream's recipes."""
    steps = recipes.read("castream_imagenet_resnet50")["data"]["test"]
    assert steps[0] == {"name": "Resize", "size": [224, 224]}
    (item,) = loaded(photo.parent, net, resize="224x224")
    assert torch.equal(item[0], make_pipeline(steps)(read_pixels(photo)))
    write_mnist(tmp_path)
    image, _ = loaded(Path("fashion_mnist"), net, size=24, resize="32x40", root=tmp_path)[0]
    raw = xcam.data.load("fashion_mnist", tmp_path).test.images[0]
    assert torch.equal(image, make_pipeline(make_size_steps((32, 40), 24)[1])(raw))


def test_truth_is_resized_and_cropped_with_its_picture(net, photo, tmp_path):
    """400×520 becomes 256×332, of which columns 54 to 278 and rows 16 to 240 are left."""
    mask = torch.zeros(400, 520, dtype=torch.uint8)
    mask[100:200, 130:260] = 255
    Image.fromarray(mask.numpy()).save(photo.parent / "mask.png")
    for truth in ("mask.png", "130 100 260 200"):
        (tmp_path / "list.txt").write_text(f"1.png 3 {truth}\n")
        image, label, truth = loaded(tmp_path / "list.txt", net, root=photo.parent)[0]
        assert type(image) is type(truth) is torch.Tensor
        assert torch.equal(image, as_tested(photo))
        assert label == 3
        if truth.ndim == 2 and len(truth) == 1:
            assert truth.tolist() == [pytest.approx([29, 48, 112, 112], abs=0.5)]
        else:
            rows, columns = truth.any(1).nonzero(), truth.any(0).nonzero()
            assert [int(rows[0]), int(rows[-1]) + 1] == [48, 112]
            assert [int(columns[0]), int(columns[-1]) + 1] == [29, 112]


def test_data_set_in_memory_is_resized_and_cropped(net, tmp_path):
    write_mnist(tmp_path)
    raw = xcam.data.load("fashion_mnist", tmp_path).test.images[0]
    image, _ = loaded(Path("fashion_mnist"), net, size=24, resize="32", root=tmp_path)[0]
    assert torch.equal(image, make_pipeline(make_size_steps(32, 24)[1])(raw))


@pytest.mark.parametrize("size", [(224, 224), (100, 200)])
def test_explain_reads_as_the_recipes_test(net, photo, tmp_path, size):
    net.input_size = size
    done = run("explain", photo, "--resize", "256", "--out", tmp_path, "--npy", tmp_path / "maps")
    assert done.exit_code == 0, done.output
    read = PictureReader.create(net, "256", "cpu", []).read(photo)
    assert read.shape == (3, *size)
    (saved,) = xcam.explain(net, read[None]).maps
    written = torch.from_numpy(np.load(tmp_path / "maps" / "1.npy"))
    assert torch.equal(written, saved)
    if size == (224, 224):
        assert torch.equal(read, as_tested(photo))


@pytest.mark.parametrize("command", ["evaluate", "score"])
def test_commands_pass_it_on(net, photo, tmp_path, monkeypatch, command):
    calls = []
    monkeypatch.setattr(xcam, "evaluate", lambda *given, **named: calls.append(given))
    (tmp_path / "maps").mkdir()
    maps = ["--maps", tmp_path / "maps"] if command == "score" else []
    done = run(command, "--data", photo.parent, "--resize", "256", "--long", *maps)
    assert done.exit_code == 0, done.output
    (((_, loader),),) = [calls]
    assert torch.equal(loader.dataset[0][0], as_tested(photo))


def test_refusals(net, photo, tmp_path):
    for text in ("224x", "1x2x3", "big", "-5"):
        sentence = (
            f"--resize takes the shorter side, 256, or height and width, 224x224, got '{text}'"
        )
        assert sentence in refused("evaluate", "--data", photo.parent, f"--resize={text}")
    sentence = "--resize 200 is less than the 224 pixels to crop from it"
    assert sentence in refused("evaluate", "--data", photo.parent, "--resize", "200")
    assert sentence in refused("explain", photo, "--resize", "200", "--out", tmp_path)
    net.input_size = None
    said = refused("explain", photo, "--resize", "256", "--out", tmp_path)
    assert "--resize needs a model with a fixed input size, and this one takes any" in said
    said = refused("evaluate", "--data", photo.parent, "--size", "0")
    assert "size must be a positive int, got 0" in said
