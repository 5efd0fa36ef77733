"""CUB-200-2011 in its published layout, and pairs of its classes with masks of their cues."""

import numpy as np
import pytest
import torch
from data_files import CUB_CLASSES, write_cub
from PIL import Image

import xcam
from xcam.errors import FileFormatError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_cub(tmp_path_factory.mktemp("cub"))


@pytest.fixture(scope="module")
def damageable(tmp_path_factory):
    """A copy whose files a test changes, and puts back."""
    return write_cub(tmp_path_factory.mktemp("damaged"))


class TestSplits:
    def test_are_the_published_ones(self, root):
        splits = xcam.data.load("cub", root.parent, input_size=(16, 16))
        assert repr(splits) == "Splits(train=3, validation=None, test=6, classes=3)"
        assert splits.classes == CUB_CLASSES
        image, label = splits.test[5]
        assert (image.shape, label) == ((3, 16, 16), 2)

    def test_have_boxes_or_segmentations(self, root):
        boxes = xcam.data.cub(root, truth="boxes", transform=lambda image, truth: (image, truth))
        image, label, truth = boxes[2]
        assert (tuple(image.shape), label) == ((3, 40, 60), 1)
        assert truth.tolist() == [[6, 4, 36, 24]]  # from x, y, width and height
        assert boxes.ids[2] == f"{CUB_CLASSES[1]}/Laysan_Albatross_0001.jpg"
        masks = xcam.data.cub(root, "train", "masks", transform=lambda image, truth: (image, truth))
        assert len(masks) == 3
        assert torch.equal(masks[0][2].bool(), (torch.arange(60) < 45).expand(40, 60))

    def test_refuse_what_is_missing_or_damaged(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"neither images.txt nor CUB_200_2011/images"):
            xcam.data.load("cub", tmp_path)
        root = write_cub(tmp_path)
        with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'val'"):
            xcam.data.cub(root, "val")
        with pytest.raises(ValueError, match="truth must be 'boxes', 'masks' or None, got 'parts'"):
            xcam.data.cub(root, truth="parts")
        (tmp_path / "segmentations" / CUB_CLASSES[0] / "Black_footed_Albatross_0001.png").unlink()
        with pytest.raises(FileNotFoundError, match=r"0001.png.*are another download"):
            xcam.data.cub(root, truth="masks")
        (root / "image_class_labels.txt").write_text("1 1\n2 1\n")
        with pytest.raises(FileFormatError, match="has 2 lines for 9 images; unpack"):
            xcam.data.cub(root)
        write_cub(tmp_path / "again")
        classes = tmp_path / "again" / "CUB_200_2011" / "classes.txt"
        classes.write_text("1\n")
        with pytest.raises(FileFormatError, match=r"line 1 of .* has 1 word, not 2"):
            xcam.data.cub(tmp_path / "again")
        classes.unlink()
        with pytest.raises(FileNotFoundError, match=r"classes.txt.*is part of CUB-200-2011"):
            xcam.data.cub(tmp_path / "again")

    def test_name_a_missing_picture(self, tmp_path):
        root = write_cub(tmp_path)
        (root / "images" / CUB_CLASSES[2] / "Sooty_Albatross_0001.jpg").unlink()
        with pytest.raises(
            FileNotFoundError, match=r"1 picture of CUB-200-2011 missing.*_0001.jpg"
        ):
            xcam.data.cub(root)


def nearest_part(points, parts, size):
    """Which pixel is nearest to a point of one of the parts, one by one."""
    found = torch.zeros(size, dtype=torch.bool)
    for y in range(size[0]):
        for x in range(size[1]):
            distances = [((x - px) ** 2 + (y - py) ** 2, part) for part, (px, py) in points]
            found[y, x] = min(distances, key=lambda one: one[0])[1] in parts
    return found


class TestPairs:
    def test_are_those_that_differ_in_few_parts(self, root):
        pairs = xcam.data.cub_cues(root, size=16)
        # Bills are hooked in 90, 10 and 80 % of the images, wings black in 70, 75 and 20 %; size is
        # of no part.
        found = [(pair.classes, pair.parts) for pair in pairs]
        assert found == [((0, 1), ("head",)), ((0, 2), ("wing",)), ((1, 2), ("head", "wing"))]
        assert pairs[0].names == CUB_CLASSES[:2]
        assert [pair.classes for pair in xcam.data.cub_cues(root, [2], 16)] == [(1, 2)]

    def test_leave_out_images_that_show_no_such_part(self, root):
        head, wing, both = xcam.data.cub_cues(root, size=16)
        assert head.images == (1, 2, 4, 5)
        assert (wing.images, both.images) == ((1, 2, 7), (4, 5, 7))  # of 8 only the tail is seen

    @pytest.mark.parametrize("size", [(20, 30), (40, 60)])
    def test_masks_are_of_the_nearest_points_and_of_the_bird(self, root, size):
        scale = size[0] / 40  # of both axes
        whole = [("head", (15, 8)), ("tail", (6, 36)), ("wing", (30, 30)), ("wing", (54, 30))]
        points = [(part, (int(x * scale), int(y * scale))) for part, (x, y) in whole]
        pairs = xcam.data.cub_cues(root, size=size)
        path = root.parent / "segmentations" / CUB_CLASSES[0] / "Black_footed_Albatross_0001.png"
        with Image.open(path) as file:
            bird = torch.from_numpy(np.array(file.convert("L").resize(size[::-1])) > 0)
        for pair, parts in zip(pairs[:2], (("head",), ("wing",)), strict=True):
            image, label, mask = pair[0]
            assert (tuple(image.shape[1:]), tuple(mask.shape), label) == (size, size, 0)
            assert mask.dtype == torch.uint8
            assert torch.equal(mask.bool(), nearest_part(points, parts, size) & bird)

    def test_are_numbered_by_the_names_of_a_model(self, root):
        reverse = [name[4:].replace("_", " ") for name in CUB_CLASSES[::-1]]
        with pytest.raises(ValueError, match=r"the model has no outputs named .*001"):
            xcam.data.cub_cues(root, categories=reverse)
        pairs = xcam.data.cub_cues(root, size=16, categories=CUB_CLASSES[::-1])
        assert [pair.classes for pair in pairs] == [(2, 1), (2, 0), (1, 0)]
        assert [pairs[0][k][1] for k in range(4)] == [2, 2, 1, 1]

    def test_refuse_damaged_attributes(self, tmp_path):
        root = write_cub(tmp_path)
        (tmp_path / "attributes.txt").write_text("1 has_size::small\n")
        with pytest.raises(FileFormatError, match=r"names 1 attribute, and .* has 3; unpack"):
            xcam.data.cub_cues(root)
        (tmp_path / "attributes.txt").unlink()
        with pytest.raises(FileNotFoundError, match=r"attributes.txt.*beside its folder"):
            xcam.data.cub_cues(root)
        (root / "attributes" / "class_attribute_labels_continuous.txt").write_text("1 2 3\n")
        with pytest.raises(FileFormatError, match="a line of equally many numbers for each of 3"):
            xcam.data.cub_cues(root)

    @pytest.mark.parametrize(
        ("name", "number", "line"),
        [
            ("attributes/class_attribute_labels_continuous.txt", 2, "abc 1 2"),
            ("attributes/class_attribute_labels_continuous.txt", 1, "nan 1 2"),
            ("../attributes.txt", 1, "2 has_size::small"),
            ("../attributes.txt", 1, "1 has_size::\u00e9"),
            ("parts/part_locs.txt", 3, "0 3 1.0 1.0 1"),
            ("parts/part_locs.txt", 3, "999 3 1.0 1.0 1"),
            ("parts/part_locs.txt", 3, "x 3 1.0 1.0 1"),
            ("parts/part_locs.txt", 3, "1 77 1.0 1.0 1"),
            ("parts/part_locs.txt", 3, "1 3 1.0 two 1"),
            ("parts/part_locs.txt", 3, "1 3 1.0 nan 1"),
            ("image_class_labels.txt", 2, "2 77"),
            ("image_class_labels.txt", 2, "2 0"),
            ("image_class_labels.txt", 2, "2 cat"),
            ("train_test_split.txt", 9, "9 2"),
            ("images.txt", 2, "3 a.jpg"),
        ],
    )
    def test_refuse_damaged_lines(self, damageable, name, number, line):
        path = damageable / name
        kept = path.read_bytes()
        lines = path.read_text().splitlines()
        lines[number - 1] = line
        path.write_text("\n".join(lines), "utf-8")
        try:
            with pytest.raises(FileFormatError, match=rf"^line {number} of .*{path.name}.* got "):
                xcam.data.cub_cues(damageable, size=16)
        finally:
            path.write_bytes(kept)

    @pytest.mark.parametrize("line", ["2 a b c d", "2 6.0 4.0 -3.0 2.0", "2 6.0 4.0 nan 2.0"])
    def test_refuse_damaged_boxes(self, damageable, line):
        path = damageable / "bounding_boxes.txt"
        kept = path.read_text()
        path.write_text("\n".join(["1 6 4 30 20", line, *kept.splitlines()[2:]]))
        with pytest.raises(FileFormatError, match=r"^line 2 of .*width and height above 0"):
            xcam.data.cub(damageable, truth="boxes")
        path.write_text(kept)

    def test_refuse_attributes_that_are_no_utf8(self, damageable):
        path = damageable.parent / "attributes.txt"
        kept = path.read_bytes()
        path.write_bytes(b"1 has_\xff\n" + kept)
        with pytest.raises(FileFormatError, match=r"^line 1 of .*attributes.txt.* ASCII name"):
            xcam.data.cub_cues(damageable)
        path.write_bytes(kept)

    def test_name_damaged_and_missing_pictures(self, tmp_path):
        root = write_cub(tmp_path)
        pair = xcam.data.cub_cues(root, size=16)[0]
        mask = pair.source.files.find_segmentation(pair.images[0])
        mask.write_bytes(mask.read_bytes()[:60])
        with pytest.raises(ValueError, match=rf"{mask.name}.* is not a segmentation that can be"):
            pair[0]
        mask.unlink()
        with pytest.raises(FileNotFoundError, match=rf"{mask.name}.*another download"):
            xcam.data.cub_cues(root)
        picture = root / "images" / pair.source.files.names[pair.images[1]]
        picture.unlink()
        with pytest.raises(FileNotFoundError, match=rf"1 picture of .*{picture.name}"):
            xcam.data.cub_cues(root)

    @pytest.mark.parametrize(
        ("differing", "error"),
        [(1, TypeError), ("12", TypeError), ((9,), ValueError), ((), ValueError)],
    )
    def test_refuse_other_numbers_of_parts(self, root, differing, error):
        with pytest.raises(error, match=r"differing must be numbers of parts from 1 to 7, .* got "):
            xcam.data.cub_cues(root, differing)
