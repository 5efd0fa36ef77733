"""Training, validation and test images, and the net, agree on their classes by name."""

from itertools import product

import pytest
import torch
from colored import NAMES, ColorNet, color_net, colored_folder, write_pictures
from nets import unchanged
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import to_tensor
from trainings import log, plain

import xcam
from xcam.models import Normalized
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


class WideNet(ColorNet):
    """A net of colors with outputs that no image is of."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, images):
        return nn.functional.pad(super().forward(images), (0, self.outputs - 3), value=-100.0)


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: Normalized(net, [0.0], [1.0])])
@pytest.mark.parametrize("outputs", [5, 1000])
def test_net_with_outputs_to_spare_keeps_the_names_of_its_training(tmp_path, outputs, wrap):
    train = colored_folder(tmp_path / "train", NAMES)
    part = colored_folder(tmp_path / "part", ["fox", "dog"])
    out = tmp_path / "run"
    net = plain(train, wrap(WideNet(outputs)), validation=part, test=part, out=out, **STILL)
    assert find_categories(net)[:4] == (*NAMES, "(output 3)")
    assert len(find_categories(net, outputs)) == outputs
    xcam.save(net, tmp_path / "net.safetensors")
    loaded = xcam.load(tmp_path / "net.safetensors", model=wrap(WideNet(outputs)))
    for one, data in product((net, loaded), (train, part)):
        table = xcam.accuracy(one, data).set_index("class")
        assert table.loc["all", ["n", "accuracy"]].tolist() == [len(data), 1.0]
        assert table.loc["fox", "n"] == 2
        rows = xcam.evaluate(one, data, "gradcam", ["accuracy"], target="label", controls=False)
        assert rows.table()["value"].tolist() == [1.0]
    assert (out / "test.csv").read_text().splitlines()[2].startswith("dog,2,2,1.0")
    owls = colored_folder(tmp_path / "owls", ["dog", "owl"])
    for measure in (
        lambda: xcam.accuracy(net, owls),
        lambda: xcam.evaluate(net, owls, "gradcam", ["accuracy"], target="label"),
        lambda: plain(owls, net, **STILL),
        lambda: plain(train, net, validation=owls, **STILL),
    ):
        with pytest.raises(ValueError, match="has no owl"):
            measure()


def test_net_with_outputs_to_spare_goes_on_learning(tmp_path):
    data, out = colored_folder(tmp_path / "train", NAMES), tmp_path / "run"
    plain(data, WideNet(5), out=out, **STILL)
    again = plain(data, WideNet(5), out=out, epochs=2, **STILL)
    plain(colored_folder(tmp_path / "part", ["fox"]), again, out=tmp_path / "on", **STILL)
    assert log(tmp_path / "on")["train_accuracy"].tolist() == [1.0]


def test_subset_may_lack_the_last_classes(tmp_path):
    data = colored_folder(tmp_path, (*NAMES, "owl"))
    plain(Subset(data, range(6)), ColorNet(), out=tmp_path / "run", **STILL)
    assert log(tmp_path / "run")["train_accuracy"].tolist() == [1.0]
    with pytest.raises(ValueError, match=r"image 6 of data: label 3 is .* \('.*owl/0.png'\)"):
        plain(data, ColorNet(), **STILL)


def test_images_without_labels_of_their_own_name_no_outputs(tmp_path):
    data = colored_folder(tmp_path, {"ape": "cat", "bee": "dog"})
    net = xcam.fit(color_net(names=()), data, "lcam_fm", layer="model.features", epochs=1)
    assert find_categories(net) == ()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize(
    "parts", [(NAMES, ["cat", "fox"]), (["dog", "fox"], NAMES), (["cat", "fox"], ["cat", "dog"])]
)
def test_folders_with_different_classes_are_joined_by_name(tmp_path, parts, order):
    folders = [colored_folder(tmp_path / str(k), part) for k, part in enumerate(parts)]
    torchvision = [ImageFolder(tmp_path / str(k), to_tensor) for k in range(2)]
    joined = ConcatDataset(folders)
    for data in (joined, ConcatDataset(torchvision), Subset(joined, range(len(joined)))):
        for given in (data, DataLoader(data, 3)):
            table = xcam.accuracy(color_net(order), given)
            assert read(table) == dict.fromkeys((*NAMES, "all"), 1.0)
    rows = xcam.evaluate(
        color_net(order), joined, "gradcam", ["accuracy"], target="label", controls=False
    )
    assert rows.table()["value"].tolist() == [1.0]
    out = tmp_path / "run"
    net = plain(joined, color_net(names=()), validation=joined, out=out, **STILL)
    assert (net.categories, log(out)["train_accuracy"].tolist()) == (NAMES, [1.0])
    assert [joined[k][1] for k in range(2)] == [0, 0]  # the given one is as it was


def test_parts_whose_joint_order_is_not_clear_are_refused(tmp_path):
    spellings = [colored_folder(tmp_path / n, {n: "cat", "fox": "fox"}) for n in ("cat", "Cat")]
    with pytest.raises(ValueError, match="parts of a ConcatDataset name their classes differently"):
        xcam.accuracy(color_net(), ConcatDataset(spellings))
