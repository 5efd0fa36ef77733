"""Image folders and lists: order, labels, and truth that is transformed with its image."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from xcam import read_image
from xcam.data import folder, imagenet_val, listed, load
from xcam.errors import UnknownNameError

STRETCHED = v2.Compose([v2.Resize((32, 32)), v2.ToDtype(torch.float32, scale=True)])


def save(path, height=40, width=60, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_mask(path, value=255, height=40, width=60, mode="L"):
    """The object is the box 20, 10 to 40, 30; a value of 7 is in its upper left corner."""
    pixels = np.zeros((height, width), dtype=np.uint8)
    pixels[10:30, 20:40] = value
    pixels[:2, 20:22] = 7
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def images(tmp_path):
    for index, name in enumerate(["a.png", "b.png", "c.png"]):
        save(tmp_path / name, seed=index)
    return tmp_path


@pytest.fixture
def write(images):
    def write(*lines):
        path = images / "list.txt"
        path.write_text("\n".join(lines))
        return path

    return write


class TestFolder:
    @pytest.fixture
    def root(self, tmp_path):
        for name in ("wren/2.png", "owl/10.JPEG", "owl/9.jpg", "wren/deep/1.png"):
            save(tmp_path / name)
        (tmp_path / "owl" / "notes.txt").write_text("no picture")
        return tmp_path

    def test_each_folder_is_a_class(self, root):
        data = folder(root, size=32)
        assert data.classes == ("owl", "wren")
        assert data.ids == ("owl/10.JPEG", "owl/9.jpg", "wren/2.png", "wren/deep/1.png")
        assert [label for _, label in data] == [0, 0, 1, 1]
        assert data[-1][1] == 1

    def test_hidden_files_and_folders_are_left_out(self, root):
        expected = folder(root, size=32)
        for name in (".checkpoints/1.png", "owl/.checkpoints/9.jpg", "wren/._2.png", ".3.png"):
            save(root / name)
        (root / ".empty").mkdir()
        found = folder(root, size=32)
        assert (found.classes, found.ids) == (expected.classes, expected.ids)
        assert found.labels == (0, 0, 1, 1)

    def test_hidden_folder_beside_pictures_is_ignored(self, images):
        save(images / ".checkpoints" / "a.png")
        save(images / "._a.png")
        assert folder(images).ids == ("a.png", "b.png", "c.png")

    def test_class_without_pictures_keeps_its_number(self, root):
        (root / "auk").mkdir()
        found = folder(root)
        assert found.classes == ("auk", "owl", "wren")
        assert found.labels == (1, 1, 2, 2)

    def test_pictures_beside_folders_are_refused(self, root):
        save(root / "a.png")
        with pytest.raises(ValueError, match=r"has pictures, such as 'a.png', beside folders, su"):
            folder(root)

    def test_all_in_one_folder(self, images):
        data = folder(images, size=32)
        assert data.ids == ("a.png", "b.png", "c.png")
        assert data.classes == data.labels == ()
        assert all(len(item) == 1 for item in data)

    def test_images_are_those_of_read_image(self, images):
        (image,) = folder(images, size=32)[1]
        assert type(image) is torch.Tensor
        assert image.shape == (3, 32, 32)
        assert image.dtype == torch.float32
        off = (image - read_image(images / "b.png", 32)).abs()
        assert off.mean() < 1 / 255  # resized in 8 bits, as torchvision's own recipes do
        assert off.max() < 0.1

    def test_full_size_images_are_exact(self, images):
        (image,) = folder(images, transform=v2.ToDtype(torch.float32, scale=True))[0]
        assert torch.allclose(image, read_image(images / "a.png"), rtol=0, atol=1e-7)

    def test_batches_by_worker_processes(self, root):
        loader = DataLoader(folder(root, size=32), batch_size=4, num_workers=1)
        ((batch, labels),) = loader
        assert batch.shape == (4, 3, 32, 32)
        assert labels.tolist() == [0, 0, 1, 1]

    def test_pickles(self, root):
        data = pickle.loads(pickle.dumps(folder(root, size=32)))
        assert torch.equal(data[0][0], folder(root, size=32)[0][0])

    def test_refusals(self, root, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no folder '.*gone'"):
            folder(tmp_path / "gone")
        (tmp_path / "empty").mkdir()
        with pytest.raises(FileNotFoundError, match=r"no pictures in '.*empty'"):
            folder(tmp_path / "empty")
        with pytest.raises(ValueError, match="size must be a positive int, got 0"):
            folder(root, size=0)
        (root / "owl" / "9.jpg").write_text("no picture")
        with pytest.raises(ValueError, match=r"9.jpg' is not a picture"):
            folder(root)[1]
        with pytest.raises(IndexError):
            folder(root)[4]


class TestListed:
    @pytest.mark.parametrize(
        "lines",
        [
            ["a.png 3", "c.png 0"],
            ["a.png\t3", "", "c.png   0", ""],
            ["a.png,3", "c.png,0"],
            ["file,label", '"a.png", 3', "c.png,0"],
            ["\ufefffile label", "a.png 3", "c.png 0"],
        ],
    )
    def test_labels(self, write, lines):
        data = listed(write(*lines), size=32)
        assert data.ids == ("a.png", "c.png")
        assert [label for _, label in data] == [3, 0]

    def test_root(self, write, images, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp("lists") / "list.txt"
        elsewhere.write_text("a.png 3\n")
        assert len(listed(elsewhere, images)) == 1
        with pytest.raises(FileNotFoundError, match=r"line 1 of .*no picture at"):
            listed(elsewhere)

    def test_names_with_blanks(self, write, images):
        save(images / "my cat.png")
        assert listed(write("my cat.png,1")).ids == ("my cat.png",)

    def test_image_listed_twice_is_loaded_twice(self, write):
        data = listed(write("a.png 0", "a.png 1"))
        assert data.ids == ("a.png", "a.png")

    @pytest.mark.parametrize(
        ("line", "error", "sentence"),
        [
            (
                "a.png",
                ValueError,
                "line 2 of .* has a file and no label, got 'a.png'; write the number",
            ),
            ("cat", ValueError, "line 2 of .* must be 'file label' .* got 'cat'"),
            (
                "a.png cat",
                ValueError,
                "line 2 of .* the label is a name, 'cat', and that of line 1 a number",
            ),
            ("a.png -1", ValueError, "line 2 of .* from 0, or its name, got '-1'"),
            ("a.png 1.5", ValueError, "line 2 of .* its name, got '1.5'"),
            ("a.png 9", ValueError, "line 2 of .*label 9 is out of range for 5 classes"),
            ("z.png 1", FileNotFoundError, "line 2 of .*no picture at '.*z.png'"),
            ("1 a.png", FileNotFoundError, "line 2 of .*/1', but at '.*a.png': a line is 'file la"),
            ("a.png,,m.png", ValueError, "line 2 of .* or its name, and column 2 is"),
            ("a.png 1 z.png", FileNotFoundError, "line 2 of .*no file at '.*z.png'"),
            ("a.png 1 1 2 3", ValueError, "line 2 of .* x0 y0 x1 y1 .* got '1 2 3'"),
            ("a.png 1 5 2 5 4", ValueError, "line 2 of .* x0 < x1 .* got '5 2 5 4'"),
            ("a.png 1 -1 2 5 4", ValueError, "line 2 of .* got '-1 2 5 4'"),
            ("a.png 1 nan 2 5 4", ValueError, "line 2 of .* got 'nan 2 5 4'"),
            ("a.png 1 1 2 3 4", ValueError, "line 2 of .* another kind of truth than line 1"),
        ],
    )
    def test_bad_line_is_refused_with_its_number(self, write, line, error, sentence):
        with pytest.raises(error, match=sentence):
            listed(write("b.png 0", line), categories=list("vwxyz"))

    def test_names_of_classes_are_numbered_as_the_categories_are(self, write):
        lines = ["file,label", "a.png,Great White", "b.png,cat", "c.png,great-white"]
        data = listed(write(*lines), categories=["cat", "dog", "great_white"])
        assert data.labels == (2, 0, 2)
        assert data.classes == ("cat", "dog", "great_white")
        with pytest.raises(UnknownNameError, match=r"no class, as line 1 of .* are cat"):
            listed(write("a.png,cut"), categories=["cat", "dog"])

    def test_names_without_categories_are_numbered_in_order(self, write):
        data = listed(write("a.png,dog", "b.png,cat", "c.png,dog"))
        assert (data.labels, data.classes) == ((1, 0, 1), ("cat", "dog"))

    def test_splits_number_names_alike(self, write, images):
        train = write("a.png,dog", "b.png,cat").rename(images / "train.csv")
        test = write("c.png,dog").rename(images / "test.csv")
        numbers = write("c.png,1").rename(images / "numbers.csv")
        splits = load("list", images, lists={"train": train, "test": test})
        assert splits.classes == ("cat", "dog")
        assert [label for _, label in splits.train] == [1, 0]
        assert [label for _, label in splits.test] == [1]
        with pytest.raises(ValueError, match=r"numbers.csv' are numbers, and those of another"):
            load("list", images, lists={"train": train, "test": numbers})

    def test_missing_images_are_kept_if_asked_for(self, write):
        lines = ["z.png,dog", "a.png,cat"]
        data = listed(write(*lines), allow_missing=True)
        assert data.ids == ("z.png", "a.png")
        with pytest.raises(FileNotFoundError, match=r"no picture at '.*z.png'"):
            data[0]
        assert data[1][1] == 0
        with pytest.raises(FileNotFoundError, match=r"line 1 of .* no picture at '.*z.png'"):
            listed(write(*lines))
        with pytest.raises(FileNotFoundError, match=r"line 1 of .* no picture at '.*z.png'"):
            listed(write("z.png 1", "y.png 2"), allow_missing=True)
        with pytest.raises(FileNotFoundError, match="a line is 'file label', in this order"):
            listed(write("b.png 0", "1 a.png"), allow_missing=True)

    def test_lines_of_files_alone_have_no_label(self, write, images):
        """As in MIT-67's lists, also where a name has a blank."""
        save(images / "k 1.png")
        with pytest.raises(
            ValueError, match=r"line 1 of .* has a file and no label, got 'k 1.png'"
        ):
            listed(write("k 1.png", "a.png"))

    def test_bad_first_line_is_not_taken_for_a_header(self, write):
        with pytest.raises(ValueError, match=r"line 1 of .* a name, 'cat', and that of line 2"):
            listed(write("a.png cat", "b.png 0"))

    @pytest.mark.parametrize("line", ["1 a.png", "cat,a.png", "7\ta.png"])
    def test_label_before_the_file_is_not_taken_for_a_header(self, write, line):
        with pytest.raises(FileNotFoundError, match=r"line 1 of .* but at '.*/a.png': a line is"):
            listed(write(line))

    def test_first_line_with_a_blank_in_its_name_is_not_taken_for_a_header(self, write, images):
        save(images / "my cat.png")
        with pytest.raises(FileNotFoundError, match=r"line 1 of .*; if a name has blanks, separ"):
            listed(write("my cat.png 0", "b.png 0"))
        assert listed(write("file label x0 y0 x1 y1", "b.png 0")).ids == ("b.png",)

    def test_nothing_listed(self, write, images):
        with pytest.raises(ValueError, match=r"list.txt' lists no images"):
            listed(write("", ""))
        with pytest.raises(ValueError, match="lists no images: its only line, 'file,label', has"):
            listed(write("file,label", ""))
        with pytest.raises(FileNotFoundError, match=r"no list at '.*gone.txt'"):
            listed(images / "gone.txt")


class TestBoxes:
    @pytest.mark.parametrize("line", ["a.png 1 20 10 40 30", "a.png,1,20,10,40,30",
                                      "a.png,1,20 10 40 30"])  # fmt: skip
    def test_boxes_are_cropped_with_the_image(self, write, line):
        """40×60 becomes 20×30, of which the middle 20×20 is left: x' = x/2 − 5."""
        ((_, label, boxes),) = listed(write(line), size=20)
        assert label == 1
        assert type(boxes) is torch.Tensor
        assert torch.equal(boxes, torch.tensor([[5.0, 5, 15, 15]]))

    def test_boxes_are_moved_by_a_custom_transform(self, write):
        ((_, _, boxes),) = listed(write("a.png 1 15 10 45 30"), transform=STRETCHED)
        assert torch.allclose(boxes, torch.tensor([[8.0, 8, 24, 24]]))

    def test_fewer_are_filled_up_and_lost_ones_marked(self, write):
        lines = ["a.png 1 20 10 40 30 0 0 8 8", "b.png 0 0 0 60 40"]
        loader = DataLoader(listed(write(*lines), size=20), batch_size=2)
        ((_, _, boxes),) = loader
        assert boxes.shape == (2, 2, 4)
        assert boxes[0, 0].tolist() == [5, 5, 15, 15]
        assert boxes[0, 1].isnan().all()  # cropped away
        assert boxes[1, 0].tolist() == [0, 0, 20, 20]
        assert boxes[1, 1].isnan().all()

    def test_items_do_not_look_at_all_others(self, write):
        class Counted(tuple):
            counts = 0

            def __iter__(self):
                Counted.counts += 1
                return super().__iter__()

        data = listed(write("a.png 1 20 10 40 30", "b.png 0 0 0 60 40"), size=20)
        data = dataclasses.replace(data, truths=Counted(data.truths))
        assert [len(item) for item in (data[0], data[1], data[0])] == [3, 3, 3]
        assert Counted.counts == 1

    def test_outside_of_the_image(self, write):
        data = listed(write("a.png 1 20 10 61 30"))
        with pytest.raises(ValueError, match=r"box \(20.0, .*61.0, 30.0\) is not within .*40×60"):
            data[0]


class TestMasks:
    @pytest.mark.parametrize(("value", "mode"), [(255, "L"), (1, "L"), (255, "1"), (3, "RGB"),
                                                 (255, "LA"), (9, "RGBA")])  # fmt: skip
    def test_masks_are_cropped_with_the_image(self, write, images, value, mode):
        save_mask(images / "mask.png", value, mode=mode)
        ((_, _, mask),) = listed(write("a.png 1 mask.png"), size=20)
        assert mask.shape == (20, 20)
        assert mask.dtype == torch.uint8
        expected = torch.zeros(20, 20, dtype=torch.uint8)
        expected[5:15, 5:15] = 1
        expected[0, 5] = mask[0, 5]  # of the small corner, by the rounding of the resize
        assert torch.equal(mask, expected)

    def test_unknown_pixels(self, write, images):
        save_mask(images / "mask.png", 1)
        same = v2.ToDtype(torch.float32, scale=True)
        path = write("a.png,1,mask.png")
        ((_, _, mask),) = listed(path, transform=same, ignore=7)
        assert mask.unique().tolist() == [0, 1, 255]
        assert (mask == 255).sum() == 4
        ((_, _, mask),) = listed(path, transform=same)
        assert mask.sum() == 404

    def test_refusals(self, write, images):
        save_mask(images / "mask.png", height=41)
        with pytest.raises(ValueError, match=r"mask.png' is 41×60, its image 40×60: they must"):
            listed(write("a.png 1 mask.png"))[0]
        (images / "mask.png").write_text("no picture")
        with pytest.raises(ValueError, match=r"mask.png' is not a mask that can be read"):
            listed(write("a.png 1 mask.png"))[0]


class TestImageNet:
    NUMBERS = (3, 1, 2, 4)

    @pytest.fixture
    def by_class(self, tmp_path):
        for number, name in zip(self.NUMBERS, ["n01", "n02", "n01", "n03"], strict=True):
            save(tmp_path / "val" / name / f"ILSVRC2012_val_{number:08d}.JPEG", seed=number)
        return tmp_path / "val"

    @pytest.fixture
    def flat(self, tmp_path):
        for number in self.NUMBERS:
            save(tmp_path / "flat" / f"ILSVRC2012_val_{number:08d}.JPEG", seed=number)
        return tmp_path / "flat"

    def test_both_layouts_agree(self, by_class, flat, tmp_path):
        truth = tmp_path / "truth.txt"
        truth.write_text("1\n0\n0\n2\n")
        one, other = imagenet_val(by_class, size=32), imagenet_val(flat, truth, size=32)
        assert one.ids == other.ids == tuple(f"ILSVRC2012_val_{n:08d}.JPEG" for n in (1, 2, 3, 4))
        assert one.labels == other.labels == (1, 0, 0, 2)
        for (image, label), (same, number) in zip(one, other, strict=True):
            assert torch.equal(image, same)
            assert label == number

    def test_without_labels(self, flat):
        assert [len(item) for item in imagenet_val(flat, size=32)] == [1] * 4

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("1\n2\n3", "has 3 labels for 4 images"),
            ("1\n2\n1000\n3", "line 3 of .* from 0 to 999, got '1000'; the devkit's numbers"),
            ("1\ncat\n3\n4", "line 2 of .* got 'cat'"),
        ],
    )
    def test_bad_labels(self, flat, tmp_path, text, sentence):
        truth = tmp_path / "truth.txt"
        truth.write_text(text)
        with pytest.raises(ValueError, match=sentence):
            imagenet_val(flat, truth)

    def test_no_use_for_labels(self, by_class, tmp_path):
        with pytest.raises(ValueError, match="has a folder a class"):
            imagenet_val(by_class, tmp_path / "truth.txt")
        with pytest.raises(FileNotFoundError, match="no list of labels at"):
            imagenet_val(by_class / "n01", tmp_path / "truth.txt")
