"""The metadata of weakly supervised localization, as it is published, and ImageNetV2."""

import numpy as np
import pytest
import torch
from commands import refused, run
from data_files import write_picture
from PIL import Image
from torchvision.transforms import v2

import xcam
from xcam.errors import FileFormatError
from xcam.metrics import PxAP

NAMES = ["test/0bt_c3/1cd9.jpg", "test/0by6g/b4d9.jpg", "test/0by6g/49 0365.jpg"]
SQUARE = v2.Compose([v2.Resize((32, 32)), v2.ToDtype(torch.float32, scale=True)])


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


def write_mask(path, size, box):
    mask = np.zeros(size, bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)  # one bit a pixel, as in OpenImages


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(NAMES):
        write_picture(tmp_path / "OpenImages" / name, 40, 60, seed)
    return tmp_path / "OpenImages"


@pytest.fixture
def metadata(tmp_path):
    labels = [f"{name},{k % 2}" for k, name in enumerate(NAMES)]
    return write(
        tmp_path / "metadata" / "OpenImages" / "test",
        class_labels=labels, image_ids=NAMES[::-1],
        image_sizes=[f"{name},60,40" for name in NAMES],
    )  # fmt: skip


class TestBoxes:
    def test_are_those_of_the_image_in_the_order_of_the_ids(self, root, metadata):
        boxes = ["10,4,30,20", "0,0,60,40", "1,2,3,4"]
        lines = [f"{name},{box}" for name, box in zip(NAMES, boxes, strict=True)]
        write(metadata, localization=[*lines, f"{NAMES[0]},40,20,50,30"])
        found = xcam.data.wsol(metadata, root, transform=lambda *both: both)
        assert found.ids == tuple(NAMES[::-1])
        assert found.labels == (0, 1, 0)
        image, label, truth = found[2]
        assert (tuple(image.shape), label) == ((3, 40, 60), 0)
        assert truth.tolist() == [[10, 4, 30, 20], [40, 20, 50, 30]]
        assert truth.shape == found[0][2].shape  # padded
        assert found[0][2][0].tolist() == [1, 2, 3, 4]

    def test_score_maps(self, root, metadata):
        write(metadata, localization=[f"{name},10,4,30,20" for name in NAMES])
        data = xcam.data.wsol(metadata, root, 32)
        net = xcam.models.load("xcam:small_cnn", num_classes=2)
        found = xcam.evaluate(net, data, ["gradcam"], ["max_box_acc_v2"], controls=False)
        assert found.table()["n"].tolist() == [3]

    def test_of_cubv2_are_five_images_a_class_with_boxes(self, tmp_path):
        names = [f"val2/{label + 1}/{k}.jpeg" for label in range(2) for k in range(5)]
        for seed, name in enumerate(names):
            write_picture(tmp_path / "CUBV2" / name, 40, 60, seed)
        metadata = write(
            tmp_path / "metadata" / "CUB" / "val",
            class_labels=[f"{name},{k // 5}" for k, name in enumerate(names)], image_ids=names,
            image_sizes=[f"{name},60,40" for name in names],
            localization=[f"{name},{k},4,30,20" for k, name in enumerate(names)],
        )  # fmt: skip
        found = xcam.data.wsol(metadata, tmp_path / "CUBV2", transform=lambda *both: both)
        assert found.ids == tuple(names)
        assert found.labels == (0,) * 5 + (1,) * 5
        assert [item[2].tolist() for item in found] == [[[k, 4, 30, 20]] for k in range(10)]


class TestMasks:
    @pytest.fixture
    def masked(self, root, metadata):
        write_mask(root / "test/a1.png", (40, 60), (0, 0, 20, 10))
        write_mask(root / "test/a2.png", (80, 120), (60, 40, 120, 80))  # of another size
        write_mask(root / "test/a_ignore.png", (40, 60), (10, 0, 40, 10))
        write_mask(root / "test/b.png", (40, 60), (0, 0, 30, 40))
        first, second, third = NAMES[0], NAMES[1], "test/49.jpg"
        write_picture(root / third, 40, 60)
        lines = [
            f"{first},test/a1.png,test/a_ignore.png", f"{first},test/a2.png,",
            f"{second},test/b.png,", f"{third},test/b.png,test/a_ignore.png",
        ]  # fmt: skip
        names = [first, second, third]
        return write(
            metadata,
            class_labels=[f"{name},1" for name in names], image_ids=names, localization=lines,
        )  # fmt: skip

    def test_of_all_objects_are_joined_and_the_rest_of_what_is_ignored_marked(self, root, masked):
        found = xcam.data.wsol(masked, root, transform=lambda *both: both)
        expected = torch.zeros(40, 60, dtype=torch.uint8)
        expected[:10, 10:40] = 255
        expected[:10, :20] = 1
        expected[20:, 30:] = 1
        assert torch.equal(found[0][2], expected)
        assert found[1][2].unique().tolist() == [0, 1]

    def test_move_with_the_image_and_score_maps(self, root, masked):
        found = xcam.data.wsol(masked, root, transform=SQUARE)
        image, _, mask = found[0]
        assert (tuple(image.shape), tuple(mask.shape)) == ((3, 32, 32), (32, 32))
        net = xcam.models.load("xcam:small_cnn", num_classes=2)
        table = xcam.evaluate(net, found, ["gradcam"], [PxAP()], controls=False).table()
        assert table["n"].tolist() == [3]
        assert table["errors"].tolist() == [0]

    def test_missing_ones_are_named(self, root, masked):
        (root / "test/a2.png").unlink()
        with pytest.raises(FileNotFoundError, match=r"1 file of .*localization.txt.*a2.png"):
            xcam.data.wsol(masked, root)

    def test_turn_with_a_rotated_picture(self, root, masked):
        path = root / NAMES[1]
        with Image.open(path) as file:
            exif = file.getexif()
            exif[0x0112] = 6  # turned by a quarter
            file.save(path, exif=exif)
        image, _, mask = xcam.data.wsol(masked, root, transform=lambda *both: both)[1]
        assert tuple(image.shape[1:]) == tuple(mask.shape) == (60, 40)
        assert torch.equal(mask.bool(), (torch.arange(60) < 30)[:, None].expand(60, 40))


class TestSplits:
    def test_are_folders_of_metadata(self, root, metadata):
        lists = {"train": metadata, "test": metadata}
        splits = xcam.data.load("wsol", root, lists=lists, input_size=16)
        assert repr(splits) == "Splits(train=3, validation=None, test=3, classes=0)"
        assert splits.test[0][0].shape == (3, 16, 16)

    def test_refuse_what_is_missing_by_name(self, root, metadata, tmp_path):
        with pytest.raises(ValueError, match=r"WSOL needs a folder of metadata for each split"):
            xcam.data.load("wsol", root)
        with pytest.raises(FileNotFoundError, match=r"no metadata in .*there is no class_labels"):
            xcam.data.load("wsol", root, lists={"test": tmp_path})
        (root / NAMES[1]).unlink()
        (root / NAMES[2]).unlink()
        sentence = r"2 files of .*OpenImages/test' missing: .*49 0365.jpg', .*b4d9.jpg'; root is"
        with pytest.raises(FileNotFoundError, match=sentence):
            xcam.data.load("wsol", root, lists={"test": metadata})

    @pytest.mark.parametrize(
        ("files", "sentence"),
        [
            ({"class_labels": ["a.jpg 3"]}, "line 1 of .* must be 'file,label', got 'a.jpg 3'"),
            ({"class_labels": ["a.jpg,-3"]}, "line 1 of .* must be 'file,label'"),
            ({"image_ids": [NAMES[0], "b.jpg"]}, "has no label of 'b.jpg'"),
            ({"localization": [f"{NAMES[0]},1,2,3"]}, "line 1 of .* must be 'file,x0,y0,x1,y1' or"),
            ({"localization": [f"{NAMES[0]},1,2,3,4"]}, "has no box or mask of 'test/0by6g"),
            (
                {"localization": [f"{NAMES[0]},1,2,3,4", f"{NAMES[1]},a.png,"]},
                "has lines with boxes and lines with masks",
            ),
        ],
    )
    def test_refuse_lines_of_another_form(self, root, metadata, files, sentence):
        with pytest.raises(FileFormatError, match=sentence):
            xcam.data.wsol(write(metadata, **files), root)

    def test_are_a_commands_data(self, root, metadata, tmp_path):
        net = xcam.models.load("xcam:small_cnn", num_classes=2, mean=(0.5,) * 3, std=(0.5,) * 3)
        xcam.save(net, tmp_path / "net.safetensors")
        write(metadata, localization=[f"{name},10,4,30,20" for name in NAMES])
        asked = (
            "evaluate", "--data", metadata, "--model", tmp_path / "net.safetensors", "--size", "32",
            "--methods", "gradcam", "--metrics", "pointing_game", "--no-controls", "--target",
            "label",
        )  # fmt: skip
        done = run(*asked, "--root", root)
        assert done.exit_code == 0, done.output
        assert "needs --root, the folder that its files are named from" in refused(*asked)


class TestImageNetV2:
    def test_folders_are_numbers_of_classes(self, tmp_path):
        folder = tmp_path / "imagenetv2-threshold0.7-format-val"
        for number in (0, 9, 10, 281):
            write_picture(folder / str(number) / "ab.jpeg", 20, 20, number)
        for root in (tmp_path, folder):
            splits = xcam.data.load("imagenetv2", root, input_size=16)
            assert (splits.train, splits.validation) == (None, None)
            assert [splits.test[k][1] for k in range(4)] == [0, 9, 10, 281]
            assert splits.classes[281] == "tabby"

    def test_other_folders_are_refused(self, tmp_path):
        write_picture(tmp_path / "cat" / "a.jpeg")
        with pytest.raises(FileNotFoundError, match=r"no ImageNetV2 .* folders named 0 to 999"):
            xcam.data.load("imagenetv2", tmp_path)


class TestDamagedMetadata:
    @pytest.mark.parametrize(
        ("name", "lines", "sentence"),
        [
            ("localization", [f"{NAMES[0]},30,4,10,20"], "line 1 of .* ends before it begins"),
            ("image_ids", [], "image_ids.txt.* names no images"),
            ("image_ids", [NAMES[0]] * 2, "image_ids.txt.* names .*1cd9.jpg' twice"),
            ("class_labels", [f"{NAMES[0]},0", f"{NAMES[0]},1"], "line 2 of .* again"),
            ("class_labels", [f"{NAMES[0]},{10**19}"], "line 1 of .* must be 'file,label'"),
        ],
    )
    def test_is_refused_in_a_sentence(self, root, metadata, name, lines, sentence):
        write(metadata, **{name: lines})
        with pytest.raises(FileFormatError, match=sentence):
            xcam.data.wsol(metadata, root)

    def test_has_images_without_a_list_of_ids(self, root, metadata):
        (metadata / "image_ids.txt").unlink()
        write(metadata, class_labels=[])
        with pytest.raises(FileFormatError, match=r"class_labels.txt.* names no images"):
            xcam.data.wsol(metadata, root)


def test_two_variants_of_imagenetv2_are_refused(tmp_path):
    names = [f"imagenetv2-{name}-format-val" for name in ("threshold0.7", "top-images")]
    for name in names:
        write_picture(tmp_path / name / "7" / "a.jpeg", 20, 20)
    with pytest.raises(ValueError, match=f"2 variants of ImageNetV2, {', '.join(names)}; give"):
        xcam.data.load("imagenetv2", tmp_path)
    splits = xcam.data.load("imagenetv2", tmp_path / names[0], input_size=16)
    assert splits.test[0][1] == 7
