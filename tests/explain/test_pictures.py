"""What people have: files, PIL images and arrays, for a model that says its input size."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import xcam
from xcam import imaging
from xcam.errors import FileFormatError, UnknownNameError
from xcam.models import Normalized
from xcam.models.toy import GapNet

NAMES = ("tench", "great white shark", "tabby, tabby cat", "crane", "crane")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def net():
    return Normalized(
        GapNet(num_classes=5), MEAN, STD, categories=NAMES, input_size=(12, 16)
    ).eval()


@pytest.fixture(scope="module")
def pixels():
    """A photograph, (30, 50, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def file(pixels, tmp_path_factory):
    path = tmp_path_factory.mktemp("photographs") / "cat.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def expected(net, file):
    return xcam.explain(net, xcam.read_image(file, net.input_size)[None], 2)


FORMS = {
    "path": lambda pixels, file: file,
    "name": lambda pixels, file: str(file),
    "PIL": lambda pixels, file: Image.open(file),
    "uint8": lambda pixels, file: pixels,
    "float64": lambda pixels, file: pixels / 255,
    "float32, turned": lambda pixels, file: (pixels / 255).astype(np.float32)[::-1].copy()[::-1],
    "batch of one": lambda pixels, file: pixels[None],
    "tensor": lambda pixels, file: torch.from_numpy(pixels).movedim(-1, 0),
    "batch of tensors": lambda pixels, file: torch.from_numpy(pixels).movedim(-1, 0)[None],
    "list of floats": lambda pixels, file: [torch.from_numpy(pixels).movedim(-1, 0) / 255],
    "with alpha": lambda pixels, file: Image.fromarray(pixels).convert("RGBA"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_picture_is_explained_alike(net, pixels, file, expected, form):
    found = xcam.explain(net, FORMS[form](pixels, file), 2)
    assert found.size == (12, 16)
    assert torch.allclose(found.raw, expected.raw, atol=1e-6)
    assert torch.allclose(found.logits, expected.logits, atol=1e-6)


def test_pictures_of_several_sizes_and_forms_make_a_batch(net, pixels, file, expected):
    gray = Image.new("L", (9, 9), 128)
    found = xcam.explain(net, [file, pixels[:20], gray], [2, "tench", 1])
    assert found.target.tolist() == [2, 0, 1]
    assert torch.allclose(found.raw[0], expected.raw[0], atol=1e-6)
    flat = torch.full((1, 3, 12, 16), 128 / 255)
    assert torch.allclose(found.logits[2:], net(flat), atol=1e-6)


def test_a_photograph_is_turned_by_its_tag(net, pixels):
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = 6
    upright = Image.fromarray(np.rot90(pixels, -1))
    assert torch.equal(xcam.explain(net, image).logits, xcam.explain(net, upright).logits)


def test_a_net_of_gray_pictures_takes_one_channel(pixels):
    net = Normalized(GapNet(channels=1), [0.5], [0.5], input_size=8).eval()
    gray = Image.fromarray(pixels).convert("L")
    found = xcam.explain(net, [Image.fromarray(pixels), gray, np.asarray(gray)])
    assert torch.equal(found.logits[0], found.logits[1])
    assert torch.equal(found.logits[0], found.logits[2])
    with pytest.raises(ValueError, match="takes gray pictures, got one in colors"):
        xcam.explain(net, pixels)


def test_dtype_and_wrapper_are_the_models(net, pixels):
    import copy

    double = torch.nn.DataParallel(copy.deepcopy(net).double())
    found, single = xcam.explain(double, pixels), xcam.explain(net, pixels)
    assert torch.allclose(found.logits.float(), single.logits, atol=1e-5)


REFUSED = {
    "floats up to 255": (lambda p: p.astype(float), ValueError, r"in \[0, 1\], got 0 to 255; div"),
    "floats below 0": (lambda p: p / 255 - 0.5, ValueError, r"in \[0, 1\], got -0.5 to 0.5"),
    "NaN": (lambda p: np.full((4, 4, 3), np.nan), ValueError, r"in \[0, 1\], got nan to nan"),
    "int64": (lambda p: p.astype(int), TypeError, "pixels must be uint8.*got int64"),
    "channels first": (lambda p: p.transpose(2, 0, 1), ValueError, r"\(H, W, 3\), got \(3, 30, 50"),
    "channels last": (
        lambda p: torch.from_numpy(p),
        ValueError,
        r"as Tensor must be \(1 or 3, H, W\), got \(30, 50, 3\)",
    ),
    "no such file": (lambda p: "none.png", FileNotFoundError, "no picture at 'none.png'"),
    "one of two is none": (lambda p: [p, 3], TypeError, "must be a torch tensor.*got list"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_picture_that_may_be_read_wrongly_is_refused(net, pixels, case):
    make, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        xcam.explain(net, make(pixels))


def test_without_an_input_size_no_picture_is_taken(net, pixels, file):
    bare = Normalized(net.model, MEAN, STD).eval()
    for picture in (file, str(file), Image.fromarray(pixels), pixels):
        with pytest.raises(
            TypeError, match=r"a model that says its input size, xcam\.models\.Norm"
        ):
            xcam.explain(bare, picture)
    with pytest.raises(TypeError, match=r"got torch.uint8; use images.float"):
        xcam.explain(bare, torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        ("tench", [0, 0]),
        ("Great_White-Shark", [1, 1]),
        ("tabby cat", [2, 2]),
        ("tabby, tabby cat", [2, 2]),
        (["tabby", "tench"], [2, 0]),
        (("tench", 4), [0, 4]),
    ],
)
def test_target_by_name(net, target, classes):
    images = torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    found = xcam.explain(net, images, target)
    assert found.target.tolist() == classes
    assert torch.equal(found.raw, xcam.explain(net, images, classes).raw)


def test_predicted_is_none_and_a_contrast_has_a_name(net):
    images = torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(xcam.explain(net, images, "predicted").raw, xcam.explain(net, images).raw)
    found = xcam.explain(net, images, "tench", contrast="tabby")
    assert torch.equal(found.raw, xcam.explain(net, images, 0, contrast=2).raw)


def test_a_name_that_is_none_or_of_two_classes_is_refused(net):
    images = torch.rand(2, 3, 12, 16)
    with pytest.raises(
        UnknownNameError, match=r"no class of the model is called 'tensh'; the near.*tench"
    ):
        xcam.explain(net, images, "tensh")
    with pytest.raises(
        ValueError, match="'crane' is the name of the classes 3, 4; give the number"
    ):
        xcam.explain(net, images, "crane")
    with pytest.raises(UnknownNameError, match="called 'shark'"):
        xcam.explain(net, images, "tench", contrast="shark")
    with pytest.raises(ValueError, match=r"one class for each of the 2 images, got shape \(1,\)"):
        xcam.explain(net, images, ["tench"])


FILES = {
    "names.txt": "ant\nbee\ncat\n",
    "bom.txt": "\ufeffant\r\nbee\r\ncat",
    "list.json": '["ant", "bee", "cat"]',
    "by_number.json": '{"2": "cat", "0": "ant", "1": "bee"}',
    "keras.json": '{"0": ["n01", "ant"], "1": ["n02", "bee"], "2": ["n03", "cat"]}',
    "class_to_idx.json": '{"bee": 1, "cat": 2, "ant": 0}',
}


@pytest.mark.parametrize("name", FILES)
def test_categories_from_a_file(tmp_path, name):
    (tmp_path / name).write_text(FILES[name], "utf-8")
    net = xcam.models.load("xcam:gap_net", num_classes=3, categories=tmp_path / name, input_size=9)
    assert net.categories == ("ant", "bee", "cat")
    assert net.input_size == (9, 9)
    xcam.save(net, tmp_path / "net.safetensors")
    back = xcam.load(tmp_path / "net.safetensors")
    assert (back.categories, back.input_size) == (net.categories, net.input_size)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "", "must name a class a line, and it is empty"),
        ("a.txt", "ant\n\ncat", "line 2 is empty"),
        ("a.json", "[", "is no JSON"),
        ("a.json", '{"0": "ant", "2": "cat"}', "must hold a list of names, or a dict"),
        ("a.json", '{"ant": 1, "cat": 2}', "must hold a list of names, or a dict"),
        ("a.json", json.dumps([1, 2]), "must hold a list of names, or a dict"),
    ],
)
def test_a_bad_file_of_categories_is_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(FileFormatError, match=words):
        xcam.models.load("xcam:gap_net", categories=tmp_path / name)


def test_bad_categories_are_refused():
    with pytest.raises(ValueError, match="categories name 2 classes, and num_classes is 3; give"):
        xcam.models.load("xcam:gap_net", num_classes=3, categories=["ant", "bee"])
    with pytest.raises(FileNotFoundError, match=r"no file of categories at 'none\.txt'; give"):
        xcam.models.load("xcam:gap_net", categories="none.txt")
    with pytest.raises(TypeError, match="names of classes, strings, got 3"):
        Normalized(GapNet(), MEAN, STD, categories=[3])


def test_captions_name_the_models_classes(net, file, tmp_path):
    found = xcam.explain(net, [file, file], ["tench", "great white shark"])
    assert found.captions()[0].startswith("tench\n")
    assert found.captions(list("abcde"))[0].startswith("a\n")
    assert found[1:].categories == xcam.Explanation.cat([found, found]).categories == NAMES
    found.save(tmp_path / "maps.safetensors")
    assert xcam.load(tmp_path / "maps.safetensors").captions() == found.captions()
    unnamed = xcam.explain(
        Normalized(net.model, MEAN, STD, categories=NAMES[:2]).eval(),
        imaging.fit(xcam.read_image(file), 12)[None],
        0,
    )
    assert unnamed.captions()[0].startswith("class 0\n")
