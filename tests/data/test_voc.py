"""Pascal VOC on a made-up set in its layout."""

import pytest
import torch
from commands import run
from data_files import VOC_OBJECTS, write_voc
from torchvision.datasets import VOCDetection

import xcam
from xcam.data import load, voc
from xcam.errors import FileFormatError


def bare(*parts):
    """The image as it is, and its truth."""
    return parts if len(parts) > 1 else parts[0]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voc")
    write_voc(folder)
    return folder


def names(data, labels):
    return {data.classes[k] for k in labels.nonzero().flatten().tolist()}


def test_images_have_the_labels_of_their_objects(root):
    data = voc(root, "trainval")
    assert data.ids == tuple(VOC_OBJECTS)
    shown = [names(data, labels) for _, labels in data]
    assert shown == [{"cat"}, {"person"}, set(), {"cat", "person"}]
    image, labels = data[0]
    assert image.shape == (3, 224, 224)
    assert (labels.dtype, labels.shape) == (torch.bool, (20,))
    assert labels.equal(data.labels[0])


def test_difficult_objects_count_on_request(root):
    data = voc(root, "trainval", difficult=True, truth="boxes", transform=bare)
    assert names(data, data[0][1]) == {"cat", "dog"}
    assert names(data, data[2][1]) == {"boat"}
    assert data[2][2][data.classes.index("boat"), 0].tolist() == [4, 4, 20, 20]


def test_boxes_are_those_of_each_class(root):
    data = voc(root, "trainval", truth="boxes", transform=bare)
    _, labels, boxes = data[1]
    person = data.classes.index("person")
    assert boxes.shape == (20, 2, 4)
    assert boxes[person].tolist() == [[0, 0, 20, 40], [20, 10, 50, 30]]
    assert boxes[~labels].isnan().all()
    assert data[2][2].isnan().all()  # its only object is difficult


def test_boxes_are_cropped_with_their_image(root):
    _, _, boxes = voc(root, "trainval", truth="boxes", size=40)[0]
    cat = voc(root).classes.index("cat")
    assert boxes[cat, 0].tolist() == [0, 5, 20, 25]  # ten columns are cut off on the left


def test_masks_are_those_of_each_class(root):
    data = voc(root, "val", truth="masks", transform=bare)
    image, _, masks = data[0]
    assert (image.shape, masks.shape) == ((3, 40, 60), (20, 40, 60))
    cat, dog = (data.classes.index(name) for name in ("cat", "dog"))
    assert masks[cat][:, :30].eq(1).all()
    assert masks[cat][:, 31:].eq(0).all()
    assert masks[dog][:, 31:].eq(1).all()
    assert masks[:, :, 30].eq(255).all()
    assert masks[data.classes.index("boat")][:, :30].eq(0).all()
    assert voc(root, "val", truth="masks", size=20)[0][2].shape == (20, 20, 20)


def test_files_are_those_of_torchvision(root):
    found = VOCDetection(str(root), image_set="val")
    data = voc(root, "val")
    assert [str(path) for path in data.paths] == found.images
    for index, (_, target) in enumerate(found):
        wanted = {one["name"] for one in target["annotation"]["object"] if one["difficult"] == "0"}
        assert names(data, data.labels[index]) == wanted


def test_splits_by_name(root, tmp_path):
    splits = load("voc", root, input_size=32)
    assert [len(splits.train), len(splits.test)] == [2, 3]
    assert (splits.validation, len(splits.classes)) == (None, 20)
    assert splits.train[0][0].shape == (3, 32, 32)
    write_voc(tmp_path, "2007", test=True)
    whole = load("voc", tmp_path, validation={"fraction": 0.25})
    assert [len(part) for part in (whole.train, whole.validation, whole.test)] == [3, 1, 2]


def test_each_class_is_scored_on_its_own_boxes(root):
    torch.manual_seed(0)
    model = xcam.models.load("xcam:small_cnn", num_classes=20)
    data = voc(root, "val", truth="boxes", size=32)
    rows = xcam.evaluate(model, data, "gradcam", "max_box_acc", "label", controls=False).to_pandas()
    assert rows["image"].tolist() == ["2008_000002", "2008_000004", "2008_000004"]
    assert [data.classes[k] for k in rows["target"]] == ["person", "cat", "person"]
    assert rows["error"].isna().all()


def test_command_reads_it_by_name(root, tmp_path):
    torch.manual_seed(0)
    net = xcam.models.load("xcam:small_cnn", num_classes=20)
    xcam.save(net, tmp_path / "net.safetensors")
    done = run(
        "evaluate", "--data", "voc", "--root", root, "--model", tmp_path / "net.safetensors",
        "--methods", "gradcam", "--metrics", "average_drop", "--target", "label", "--no-controls",
        "--size", "32",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "average_drop" in done.stdout


def test_missing_and_damaged_files_are_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold VOCdevkit/ with one year .* none"):
        load("voc", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no VOC of 2011 at .*VOCdevkit.VOC2011'"):
        voc(root, year="2011")
    with pytest.raises(ValueError, match="truth must be 'boxes', 'masks' or None, got 'box'"):
        voc(root, truth="box")
    with pytest.raises(ValueError, match=r"year must be a string, one of 2007, .* got '1999'"):
        voc(root, year="1999")
    with pytest.raises(ValueError, match=r"year must be a string, one of 2007, .* got 2012$"):
        voc(root, year=2012)
    for image_set in ("horse_train", "test"):
        with pytest.raises(ValueError, match=f"image_set must be .* got '{image_set}' of 2012; "):
            voc(root, image_set)
    for folder in (root / "VOCdevkit", root / "VOCdevkit" / "VOC2012"):
        with pytest.raises(FileNotFoundError) as caught:
            voc(folder)
        assert str(caught.value).endswith(f"; root is the folder around it, {str(root)!r}")
    folder = write_voc(tmp_path)
    (folder / "JPEGImages" / "2008_000004.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"no picture at .*2008_000004.jpg', which VOC's"):
        voc(tmp_path, "val")
    annotation = folder / "Annotations" / "2008_000001.xml"
    annotation.write_text(annotation.read_text().replace("cat", "unicorn"))
    with pytest.raises(FileFormatError, match=r"2008_000001.xml' is no annotation of VOC's 20 cla"):
        voc(tmp_path, "train")
    annotation.unlink()
    with pytest.raises(FileNotFoundError, match=r"no annotation at .*2008_000001.xml'"):
        voc(tmp_path, "train")
    write_voc(tmp_path, "2007")
    with pytest.raises(FileNotFoundError, match="holds 2 years: 2007, 2012"):
        load("voc", tmp_path)
