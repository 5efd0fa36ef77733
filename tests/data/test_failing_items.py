"""A file or an item that fails is named, whatever it is and wherever it is read."""

import re
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import xcam
from xcam.data import folder, listed, predict_labels, relabel
from xcam.data.items import find_path

TO_TENSOR = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def save(path, gray=0, size=(32, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, gray).save(path)
    return path


def cut(path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:3000])


def break_chunk(path):
    save(path)
    path.write_bytes(path.read_bytes().replace(b"IDAT", b"I\xffAT"))


DAMAGE = {
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "text": (lambda path: path.write_text("<html>not found</html>"), "Pillow knows no format"),
    "cut": (cut, "truncated"),
    "chunk": (break_chunk, ""),
    "16 bit": (
        lambda path: Image.fromarray(np.full((8, 8), 4095, "uint16")).save(path),
        "more than 8 bits a channel",
    ),
}


@pytest.fixture
def small_limit(monkeypatch):
    """Pillow warns above this and refuses above twice of it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 32)


class TestReadImage:
    @pytest.mark.parametrize("damage", DAMAGE)
    def test_damaged_file(self, tmp_path, damage):
        path = tmp_path / "bad.png"
        make, reason = DAMAGE[damage]
        make(path)
        with pytest.raises(ValueError, match=rf"bad.png' is not a picture that can .*{reason}"):
            xcam.read_image(path)

    def test_huge_picture(self, tmp_path, small_limit):
        path = save(tmp_path / "scan.png", size=(64, 64))
        with pytest.raises(ValueError, match=r"scan.png' is .* raise PIL.Image.MAX_IMAGE_PIXELS, "
                           "now 1024, if"):  # fmt: skip
            xcam.read_image(path)

    def test_remedy_for_a_huge_picture_applies(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64)
        assert xcam.read_image(save(tmp_path / "scan.png", size=(64, 64))).shape == (3, 64, 64)

    def test_warning_of_a_large_picture_as_an_error(self, tmp_path, small_limit):
        path = save(tmp_path / "large.png", size=(40, 40))
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with pytest.raises(ValueError, match=r"large.png' is .* exceeds limit"):
                xcam.read_image(path)
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            assert xcam.read_image(path).shape == (3, 40, 40)

    def test_no_file(self, tmp_path):
        for path in (tmp_path / "gone.png", tmp_path, tmp_path / "a" / "b.png"):
            with pytest.raises(FileNotFoundError, match=re.escape(f"no picture at {str(path)!r}")):
                xcam.read_image(path)

    def test_file_that_may_not_be_read(self, tmp_path, monkeypatch):
        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied")

        path = save(tmp_path / "locked.png")
        monkeypatch.setattr(type(path), "open", refuse)
        with pytest.raises(ValueError, match=r"locked.png' is not a .* read: Permission denied$"):
            xcam.read_image(path)

    @pytest.mark.parametrize(
        ("values", "name"),
        [
            (np.arange(64, dtype="uint16").reshape(8, 8) * 1000, "deep.png"),
            (np.linspace(-3, 5, 64, dtype="float32").reshape(8, 8), "deep.tif"),
        ],
    )
    def test_remedy_for_16_bits_applies(self, tmp_path, monkeypatch, values, name):
        """The sentence holds the code that converts the file."""
        monkeypatch.chdir(tmp_path)
        Image.fromarray(values).save(name)
        with pytest.raises(ValueError, match=rf"{name}.*more than 8 bits a channel") as caught:
            xcam.read_image(name)
        code = re.search(r"such as (PIL.*\.save\('8bit\.png'\))", str(caught.value)).group(1)
        import PIL.Image

        exec(code, {"numpy": np, "PIL": PIL, "path": name})
        expected = (values - values.min()) / (values.max() - values.min())
        assert torch.allclose(
            xcam.read_image("8bit.png")[0], torch.from_numpy(expected).float(), atol=0.6 / 255
        )

    def test_other_modes(self, tmp_path):
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.tif")
        assert xcam.read_image(tmp_path / "red.tif")[:, 0, 0].tolist() == [1, 0, 0]
        picture = Image.new("P", (8, 8), 1)
        picture.putpalette([0, 0, 0, 255, 0, 255])
        picture.save(tmp_path / "clear.png", transparency=b"\x00\x80")
        assert xcam.read_image(tmp_path / "clear.png")[:, 0, 0].tolist() == [1, 0, 1]


class Failing(Dataset):
    """Images of a user, of which number 3 fails by a fault of the code."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index == 3:
            return {}["annotation"]
        return torch.rand(3, 32, 32), index % 2


@pytest.fixture
def root(tmp_path):
    for name in ("a/0", "a/1", "a/2", "b/3", "b/4", "b/5"):
        save(tmp_path / "data" / f"{name}.png")
    cut(tmp_path / "data" / "b" / "3.png")
    return tmp_path / "data"


DATA = {
    "folder": (lambda root: folder(root, 32), 3),
    "torchvision": (lambda root: ImageFolder(root, TO_TENSOR), 3),
    "subset": (lambda root: Subset(ImageFolder(root, TO_TENSOR), [0, 5, 3, 2]), 2),
    "relabeled": (lambda root: relabel(folder(root, 32), [0, 1] * 3), 3),
    "joined": (
        lambda root: ConcatDataset(
            [Subset(folder(root, 32), [0, 1, 4, 5]), ImageFolder(root, TO_TENSOR)]
        ),
        7,
    ),
    "own": (lambda root: Failing(), 3),
}


@pytest.fixture
def model():
    return xcam.models.load("xcam:small_cnn", num_classes=2)


@pytest.mark.parametrize("kind", DATA)
class TestVerbs:
    @pytest.fixture
    def data(self, kind, root):
        return DATA[kind][0](root)

    @pytest.fixture
    def sentence(self, kind, root):
        """One line: the index, and the path once or what a user's code raised."""
        file = re.escape(str(root / "b" / "3.png"))
        reason = "KeyError: 'annotation'" if kind == "own" else rf".*{file}"
        return rf"^image {DATA[kind][1]} of data: {reason}"

    def test_training_and_accuracy(self, model, data, sentence, kind):
        workers = int(kind in ("torchvision", "own"))
        for verb in (
            lambda: xcam.fit(model, data, epochs=1, batch_size=4),
            lambda: xcam.fit(model, data, epochs=1, batch_size=4, workers=workers),
            lambda: xcam.accuracy(model, data, workers=workers),
            lambda: predict_labels(model, data, workers=workers),
        ):
            with pytest.raises(ValueError, match=sentence) as caught:
                verb()
            assert str(caught.value).count("3.png") == (kind != "own")
            assert "\n" not in str(caught.value)

    def test_evaluation(self, model, data, root, kind):
        results = xcam.evaluate(model, data, metrics=["sparseness"], controls=False)
        (row,) = results.errors().to_dict("records")
        assert row["index"] == DATA[kind][1]
        wanted = "KeyError: 'annotation'" if kind == "own" else str(root / "b" / "3.png")
        assert wanted in row["error"]
        assert row["error"].count("3.png") == (kind != "own")

    def test_validation(self, model, data, kind, sentence, root):
        good = Subset(folder(root, 32), [0, 1, 2, 4])
        with pytest.raises(ValueError, match=sentence.replace("of data", "of validation")):
            xcam.fit(model, good, validation=data, epochs=1, batch_size=4)


def test_mask_that_fails_is_named(tmp_path, model):
    save(tmp_path / "a.png")
    save(tmp_path / "m.png", 255)
    cut(tmp_path / "bad.png")
    (tmp_path / "list.txt").write_text("a.png 0 m.png\na.png 0 bad.png\n")
    data = listed(tmp_path / "list.txt", size=32)
    results = xcam.evaluate(model, data, metrics=["pointing_game"], controls=False)
    (row,) = results.errors().to_dict("records")
    assert row["index"] == 1
    assert re.search(r"bad.png' is not a mask that can be read: .*truncated", row["error"])


def test_path_of_other_data_sets(tmp_path):
    class Flowers(Failing):
        _image_files = tuple(tmp_path / f"{index}.jpg" for index in range(6))

    class Wrapped(Failing):
        dataset = Flowers()

    class Counted(Failing):
        images = torch.zeros(6, 3, 2, 2)
        files = ("a", "b")  # of something else

    assert find_path(Flowers(), 4) == str(tmp_path / "4.jpg")
    assert find_path(Wrapped(), 4) == str(tmp_path / "4.jpg")
    assert find_path(Counted(), 4) == ""
    assert find_path([(1, 2)] * 6, 4) == ""
