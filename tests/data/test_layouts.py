"""Layouts of pictures on disk: class folders, ImageNet, lists."""

from pathlib import Path

import pytest
import torch
from data_files import write_picture
from torchvision.transforms.v2 import functional

import xcam
from xcam import read_image
from xcam.data import load
from xcam.imaging import read_pixels

SAME = {"train": [], "test": []}  # pictures as they are

WNIDS = (Path(xcam.__file__).parent / "data" / "imagenet_wnids.txt").read_text().split()


def labels(part):
    return [label for _, label in part]


class TestFolder:
    @pytest.fixture
    def root(self, tmp_path):
        for seed, name in enumerate(["cat/1.jpg", "cat/2.jpg", "dog/1.png"]):
            write_picture(tmp_path / "train" / name, seed=seed)
        for seed, name in enumerate(["dog/3.png", "dog/4.jpg", "cat/9.jpg"], start=7):
            write_picture(tmp_path / "val" / name, seed=seed)
        return tmp_path

    def test_train_and_val_are_training_and_test_splits(self, root):
        splits = load("folder", root, **SAME)
        assert splits.classes == ("cat", "dog")
        assert labels(splits.train) == [0, 0, 1]
        assert labels(splits.test) == [0, 1, 1]
        assert splits.validation is None
        assert splits.test.ids == ("cat/9.jpg", "dog/3.png", "dog/4.jpg")
        image, _ = splits.test[1]
        assert type(image) is torch.Tensor
        assert torch.equal(image, read_image(root / "val" / "dog" / "3.png"))

    def test_val_is_for_validation_beside_a_test_folder(self, root):
        write_picture(root / "test" / "dog" / "5.jpg")
        splits = load("folder", root, **SAME)
        assert labels(splits.validation) == [0, 1, 1]
        assert splits.validation.ids == ("cat/9.jpg", "dog/3.png", "dog/4.jpg")
        assert labels(splits.test) == [1]  # dog, though it is the only class there
        held = load("folder", root, train=[], input_size=40, crop_size=32).validation
        assert held[0][0].shape == (3, 32, 32)
        with pytest.raises(ValueError, match=r"no validation split .* has one on disk"):
            load("folder", root, validation={"fraction": 0.5})

    def test_empty_training_class_is_refused(self, root):
        for name in ("ape", ".hidden"):
            (root / "train" / name).mkdir()
        with pytest.raises(ValueError, match=r"train' has no pictures of ape: fill that folder"):
            load("folder", root, **SAME)

    def test_folder_with_only_a_test_split_is_loaded(self, root):
        (root / "train").rename(root / "elsewhere")
        splits = load("folder", root, **SAME)
        assert splits.train is None
        assert splits.classes == ("cat", "dog")
        assert len(splits.test) == 3

    def test_default_sizes(self, root):
        splits = load("folder", root)
        assert splits.train[0][0].shape == (3, 224, 224)
        whole = functional.resize(read_pixels(root / "val" / "dog" / "3.png"), 256) / 255
        cut = functional.center_crop(whole, 224)
        assert torch.equal(splits.test[1][0], cut)
        assert torch.equal(load("folder", root, train=[]).test[1][0], cut)
        assert load("folder", root, crop_size=32).train[0][0].shape == (3, 32, 32)

    def test_refusals(self, root):
        write_picture(root / "val" / "yak" / "5.jpg")
        with pytest.raises(ValueError, match=r"val' has the classes yak, .* training: cat, dog"):
            load("folder", root)
        (root / "val").rename(root / "other")
        write_picture(root / "val" / "5.jpg")
        with pytest.raises(ValueError, match=r"val' holds pictures without labels: put them"):
            load("folder", root)
        with pytest.raises(FileNotFoundError, match=r"no data in .*neither train/ nor val/"):
            load("folder", root / "train")


class TestImageNet:
    VAL = ((3, "n02"), (1, "n01"), (2, "n03"), (4, "n01"))

    @pytest.fixture
    def train(self, tmp_path):
        for seed, name in enumerate(["n01/n01_7.JPEG", "n01/n01_8.JPEG", "n02/n02_1.JPEG",
                                     "n03/n03_1.JPEG"]):  # fmt: skip
            write_picture(tmp_path / "train" / name, seed=seed)

    def write_val(self, root, by_class):
        for number, name in self.VAL:
            folder = root / "val" / name if by_class else root / "val"
            write_picture(folder / f"ILSVRC2012_val_{number:08d}.JPEG", seed=number)

    @pytest.mark.parametrize(
        ("text", "by_class"),
        [
            (None, True),
            ("0\n2\n1\n0\n", False),
            ("\nILSVRC2012_val_00000001.JPEG 0\nILSVRC2012_val_00000002.JPEG 2\n"
             "ILSVRC2012_val_00000003.JPEG 1\nILSVRC2012_val_00000004.JPEG 0\n", False),
            ("file,label\nILSVRC2012_val_00000001.JPEG,0\nILSVRC2012_val_00000002.JPEG,2\n"
             "ILSVRC2012_val_00000003.JPEG,1\nILSVRC2012_val_00000004.JPEG,0\n", False),
        ],
    )  # fmt: skip
    def test_layouts_agree(self, train, tmp_path, text, by_class):
        self.write_val(tmp_path, by_class)
        lists = {}
        if text:
            lists["test"] = tmp_path / "labels.txt"
            lists["test"].write_text(text)
        splits = load("imagenet", tmp_path, lists=lists, **SAME)
        assert splits.classes == ("n01", "n02", "n03")
        assert labels(splits.train) == [0, 0, 1, 2]
        assert labels(splits.test) == [0, 2, 1, 0]
        for index, (image, _) in enumerate(splits.test, start=1):
            (path,) = (tmp_path / "val").rglob(f"*_{index:08d}.JPEG")
            assert torch.equal(image, read_pixels(path) / 255)

    def test_all_thousand_have_names(self, tmp_path):
        for name in WNIDS:
            (tmp_path / "train" / name).mkdir(parents=True)
        write_picture(tmp_path / "train" / "n02123045" / "a.JPEG")
        splits = load("imagenet", tmp_path)
        assert splits.test is None
        assert splits.train[0][1] == 281
        assert splits.classes[281] == "tabby"
        assert len(splits.classes) == 1000

    def test_validation_images_alone(self, tmp_path):
        self.write_val(tmp_path, by_class=False)
        (tmp_path / "val.txt").write_text("999\n1\n2\n3\n")
        splits = load("imagenet", tmp_path, lists={"test": tmp_path / "val.txt"})
        assert splits.train is None
        assert labels(splits.test) == [999, 1, 2, 3]
        assert splits.classes[999] == "toilet tissue"

    def test_training_images_by_a_list(self, train, tmp_path):
        (tmp_path / "train.txt").write_text("n02/n02_1.JPEG 2\nn01/n01_7.JPEG 1\n")
        splits = load("imagenet", tmp_path, lists={"train": tmp_path / "train.txt"})
        assert labels(splits.train) == [2, 1]

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("1\n2\n3\n", "has 3 labels for 4 images"),
            ("1\n2\n3\n0\n", "has the label 3, out of range for 3 classes"),
            ("ILSVRC2012_val_00000001.JPEG 3\n", "line 1 of .* label 3 is out of range"),
            ("ILSVRC2012_val_00000009.JPEG 1\n", "line 1 of .* no picture at"),
            ("\n", "has 0 labels for 4 images"),
        ],
    )
    def test_bad_lists(self, train, tmp_path, text, sentence):
        self.write_val(tmp_path, by_class=False)
        (tmp_path / "labels.txt").write_text(text)
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            load("imagenet", tmp_path, lists={"test": tmp_path / "labels.txt"})

    def test_refusals(self, train, tmp_path):
        self.write_val(tmp_path, by_class=False)
        with pytest.raises(ValueError, match=r"val' holds pictures without labels: .* a list"):
            load("imagenet", tmp_path)
        with pytest.raises(FileNotFoundError, match=r"no list at 'gone.txt'"):
            load("imagenet", tmp_path, lists={"test": "gone.txt"})
        with pytest.raises(TypeError, match="no argument 'val': it has train, test"):
            load("imagenet", tmp_path, lists={"val": "gone.txt"})
        (tmp_path / "val").rename(tmp_path / "other")
        with pytest.raises(FileNotFoundError, match=r"no folder '.*val' for the files of 'v.txt'"):
            load("imagenet", tmp_path, lists={"test": "v.txt"})
        with pytest.raises(FileNotFoundError, match=r"no ImageNet in .*neither train/ nor val/"):
            load("imagenet", tmp_path / "train")


class TestLists:
    @pytest.fixture
    def root(self, tmp_path):
        for seed, name in enumerate("abc"):
            write_picture(tmp_path / "pictures" / f"{name}.png", seed=seed)
        (tmp_path / "train.txt").write_text("a.png 3\nb.png 0\n")
        (tmp_path / "val.csv").write_text("file,label\nc.png,7\n")
        (tmp_path / "boxes.txt").write_text("c.png 7 1 2 30 20\n")
        return tmp_path

    def test_parts(self, root):
        lists = {"train": root / "train.txt", "validation": root / "val.csv",
                 "test": str(root / "boxes.txt")}  # fmt: skip
        splits = load("list", root / "pictures", lists=lists, **SAME)
        assert labels(splits.train) == [3, 0]
        assert labels(splits.validation) == labels(splits.test) == [7]
        assert splits.classes == ()
        image, _ = splits.train[1]
        assert torch.equal(image, read_image(root / "pictures" / "b.png"))

    def test_long_csv_without_a_header_is_read(self, root):
        """Without a header, the first line is an image like the others."""
        (root / "val.csv").write_text("c.png,7\na.png,1\n" * 1000)
        splits = load("list", root / "pictures", lists={"test": root / "val.csv"})
        assert len(splits.test) == 2000

    def test_refusals(self, root):
        with pytest.raises(ValueError, match="data by lists needs a list for each split"):
            load("list", root / "pictures")
        with pytest.raises(TypeError, match="no argument 'tset': did you mean test"):
            load("list", root / "pictures", lists={"tset": root / "val.csv"})
        with pytest.raises(FileNotFoundError, match="no list at"):
            load("list", root / "pictures", lists={"test": root / "gone.csv"})
