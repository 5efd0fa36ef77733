"""Training, validation and test images, and the net, agree on their classes by name."""

import pytest
import torch
from colored import NAMES, ColorNet, color_net, colored_folder, write_pictures
from nets import unchanged
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import to_tensor
from trainings import log, plain

import xcam
from xcam.models.categories import find_categories

STILL = {"optimizer": {"name": "SGD", "lr": 0.0}}
"""A training that changes nothing, so that a net that is right stays so."""


def read(table):
    return dict(zip(table["class"], table["accuracy"].fillna(-1), strict=True))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("classes", [["cat", "dog", "fox"], ["dog", "fox"]])
def test_accuracy_compares_names(tmp_path, order, classes):
    ours, net = colored_folder(tmp_path, classes), color_net(order)
    theirs = ImageFolder(tmp_path, to_tensor)
    expected = {name: 1.0 if name in classes else -1 for name in (*NAMES, "all")} | {"all": 1.0}
    for data in (ours, theirs, Subset(theirs, range(len(ours))), DataLoader(ours, 3)):
        with unchanged(net):
            assert read(xcam.accuracy(net, data)) == expected


def test_accuracy_refuses_other_classes(tmp_path):
    data = colored_folder(tmp_path, ["dog", "fox", "owl"])
    with pytest.raises(ValueError, match="of data are dog, fox, owl; those of the model are cat, "):
        xcam.accuracy(color_net(), data)
    with pytest.raises(ValueError, match=r"of its 2 classes .dog, fox., and the model has 3"):
        xcam.accuracy(color_net(names=()), colored_folder(tmp_path / "two", ["dog", "fox"]))
    relabeled = xcam.data.relabel(data, [1, 1, 2, 2, 0, 0])  # the remedy
    assert xcam.accuracy(color_net(), relabeled)["accuracy"].tolist() == [1.0] * 4
    net = color_net()
    net.categories = ("owl", "dog", "fox")  # the other one: it takes gray for the first
    assert read(xcam.accuracy(net, data)) == {"owl": 1, "dog": 1, "fox": 1, "all": 1}


@pytest.mark.parametrize("names", [NAMES, ()])
def test_images_of_fewer_classes_are_measured_by_name(tmp_path, names):
    train = colored_folder(tmp_path / "train", NAMES)
    part = colored_folder(tmp_path / "part", ["dog", "fox"])
    out = tmp_path / "run"
    net = plain(train, color_net(names=names), validation=part, test=part, out=out, **STILL)
    assert log(out)["validation_accuracy"].tolist() == [1.0]
    assert (out / "test.csv").read_text().splitlines()[2].startswith("dog,2,2,1.0")
    assert find_categories(xcam.load(out / "best.safetensors", model=net)) == NAMES


def test_training_images_take_the_order_of_a_named_net(tmp_path):
    order = (2, 0, 1)
    data = colored_folder(tmp_path, ["dog", "cat"])
    plain(data, color_net(order), out=tmp_path / "run", **STILL)
    assert log(tmp_path / "run")["train_accuracy"].tolist() == [1.0]
    loaded = xcam.load(tmp_path / "run" / "last.safetensors", model=color_net())
    assert loaded.categories == ("fox", "cat", "dog")


def test_other_classes_are_refused_before_anything_is_written(tmp_path):
    train = colored_folder(tmp_path / "train", NAMES)
    other = colored_folder(tmp_path / "other", ["dog", "fox", "owl"])
    out = tmp_path / "run"
    for net, arguments, sentence in [
        (color_net(), {"data": other}, "of data are dog, fox, owl; those of the model are cat, do"),
        (
            color_net(names=()),
            {"validation": other},
            "of validation .* of the training data",
        ),
        (
            ColorNet(),
            {"test": other},
            "of test are dog, fox, owl; those of the training data",
        ),
    ]:
        with unchanged(net), pytest.raises(ValueError, match=sentence):
            plain(arguments.pop("data", train), net, out=out, **STILL, **arguments)
        assert not out.exists()


def test_stale_names_of_a_replaced_head_give_way(tmp_path):
    net = color_net(names=())
    net.categories = tuple(f"kind {k}" for k in range(1000))
    data = colored_folder(tmp_path, NAMES)
    assert plain(data, net, **STILL).categories == NAMES
    images = TensorDataset(torch.rand(4, 3, 16, 16), torch.arange(4) % 3)
    assert plain(images, net, **STILL).categories == ()


def test_plain_net_keeps_the_names_in_its_checkpoint(tmp_path):
    net = plain(colored_folder(tmp_path / "train", NAMES), ColorNet(), **STILL)
    assert find_categories(net) == NAMES
    xcam.save(net, tmp_path / "net.safetensors")
    loaded = xcam.load(tmp_path / "net.safetensors", model=ColorNet())
    part = colored_folder(tmp_path / "part", ["fox", "dog"])
    assert xcam.accuracy(loaded, part)["accuracy"].iloc[-1] == 1.0


def test_folder_of_other_classes_does_not_go_on(tmp_path):
    train = colored_folder(tmp_path / "train", NAMES)
    write_pictures(tmp_path / "other", {"ape": "cat", "bee": "dog", "cow": "fox"})
    other, out = xcam.data.folder(tmp_path / "other", 16), tmp_path / "run"
    plain(train, color_net(names=()), out=out)
    plain(train, color_net(names=()), out=out, epochs=2)
    with pytest.raises(ValueError, match="training of the classes cat, dog, fox, and now they are"):
        plain(other, color_net(names=()), out=out, epochs=3)
    assert len(log(out)) == 2


def test_head_that_asks_for_no_labels_takes_any_classes(tmp_path):
    data = colored_folder(tmp_path, {"ape": "cat", "bee": "dog"})
    settings = {"layer": "model.features", "epochs": 1, "batch_size": 4}
    net = xcam.fit(color_net(), data, "lcam_fm", **settings)
    assert net.categories == NAMES
    with pytest.raises(ValueError, match="those of the model are cat, dog, fox"):
        xcam.fit(color_net(), data, "lcam_fm", labels="given", **settings)
