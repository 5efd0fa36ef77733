"""Training on images that show several classes: the loss, the mAP, resuming, refusals."""

import multiprocessing

import pandas as pd
import pytest
import torch
from multi_label import CLASSES, ColorNet, Colors
from sklearn.metrics import average_precision_score
from torch import nn
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset
from trainings import assert_same_training

import xcam
from xcam._fit.average_precision import compute_average_precisions, gather_rows
from xcam._fit.settings import Runtime
from xcam._roar.images import PlainImages
from xcam.core import compute_class_loss
from xcam.data.datasets import list_labels
from xcam.data.joining import number_parts_alike
from xcam.methods import CALM, CAStream, LCAMFm
from xcam.runs.processes import Processes

ADAM = {"optimizer": {"name": "Adam", "lr": 0.02}, "batch_size": 8}


def logits(net, data):
    with torch.no_grad():
        return net(torch.stack([data[index][0] for index in range(len(data))]))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colors") / "run"
    settings = {"validation": Colors(seed=1), "test": Colors(seed=2)}
    return xcam.fit(ColorNet(), Colors(), epochs=6, out=folder, **ADAM, **settings), folder


def test_average_precision_agrees_with_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(5, (40, 4), generator=generator).float()  # many are equal
    labels = torch.rand(40, 4, generator=generator) > 0.6
    found = compute_average_precisions(scores, labels)
    assert found[:, 0].tolist() == labels.sum(0).tolist()
    wanted = average_precision_score(labels.numpy(), scores.numpy(), average=None)
    assert found[:, 1].tolist() == pytest.approx(wanted.tolist())


def test_average_precision_of_a_class_that_no_image_shows_is_not_a_number():
    labels = torch.tensor([[True, False], [False, False]])
    found = compute_average_precisions(torch.tensor([[1.0, 0], [2, 0]]), labels)
    assert found[0].tolist() == [1, 0.5]
    assert found[1, 1].isnan()


def test_step_is_one_of_the_binary_cross_entropy():
    data = Colors(8)
    net = xcam.fit(ColorNet(), data, epochs=1, batch_size=8, optimizer={"name": "SGD", "lr": 0.5})
    own = ColorNet().train()
    loss = F.binary_cross_entropy_with_logits(own(data.images), data.shown.float())
    loss.backward()
    torch.testing.assert_close(net.fc.weight, own.fc.weight - 0.5 * own.fc.weight.grad)


def test_criterion_gets_the_labels_as_numbers():
    data, given = Colors(8), nn.BCEWithLogitsLoss()
    same = {"epochs": 1, "batch_size": 8, "accumulate": 2, "validation": data}
    plain, own = (xcam.fit(ColorNet(), data, criterion=one, **same) for one in (None, given))
    torch.testing.assert_close(own.fc.weight, plain.fc.weight)


def test_log_and_files_have_the_map(trained):
    net, folder = trained
    log = pd.read_csv(folder / "log.csv")
    best = log.loc[log["validation_map"][::-1].idxmax()]
    validation = Colors(seed=1)
    wanted = average_precision_score(validation.shown.numpy(), logits(net, validation).numpy())
    assert best["validation_map"] == pytest.approx(wanted)
    assert wanted > 0.8
    test = pd.read_csv(folder / "test.csv")
    assert test["class"].tolist() == [*CLASSES, "all"]
    assert net.categories == CLASSES


def test_accuracy_is_the_average_precision_of_each_class(trained):
    net, data = trained[0], Colors(seed=3)
    found = xcam.accuracy(net, data, batch_size=7)
    wanted = average_precision_score(data.shown.numpy(), logits(net, data).numpy(), average=None)
    assert list(found) == ["class", "n", "average_precision"]
    assert found["n"].tolist() == [*data.shown.sum(0).tolist(), len(data)]
    assert found["average_precision"].tolist() == pytest.approx([*wanted, wanted.mean()])


def test_labels_are_mapped_by_the_names_of_their_classes(trained):
    net, data = trained[0], Colors(seed=3)
    other = Colors(seed=3)
    other.classes = ("blue", "red", "green")
    other.shown = other.labels = data.shown[:, [2, 0, 1]]
    found = xcam.accuracy(net, other)
    pd.testing.assert_frame_equal(found, xcam.accuracy(net, data))


def test_parts_of_fewer_classes_are_numbered_as_the_whole():
    data, part = Colors(2), Colors(2)
    part.classes, part.shown = ("blue", "red"), torch.tensor([[True, False], [False, True]])
    part.labels = part.shown
    joined = number_parts_alike(ConcatDataset([data, part]))
    wanted = [[False, False, True], [True, False, False]]
    assert [joined[index][1].tolist() for index in (2, 3)] == wanted
    assert [list(map(bool, label)) for label in list_labels(joined)[2:]] == wanted


def test_training_resumes_with_the_same_bits(trained, tmp_path):
    settings = {"validation": Colors(seed=1), "test": Colors(seed=2)}
    for epochs in (2, 6):
        xcam.fit(ColorNet(), Colors(), epochs=epochs, out=tmp_path / "run", **ADAM, **settings)
    assert_same_training(tmp_path / "run", trained[1])


@pytest.mark.parametrize("method", ["castream", "lficam", "abn", "lcam_fm"])
def test_trainable_methods_learn_from_several_labels(method):
    params = {"stage": "stage"} if method == "abn" else {}
    net = xcam.fit(ColorNet(), Colors(16), method, epochs=1, batch_size=8, **params)
    assert xcam.explain(net, Colors(4).images).maps.isfinite().all()


def test_cam_objective_of_calm_learns_from_several_labels():
    xcam.fit(ColorNet(), Colors(16), "calm", loss="cam", epochs=1, batch_size=8)


def test_loss_of_castream_is_the_binary_cross_entropy():
    data, net = Colors(4), CAStream().attach(ColorNet())
    loss, found = CAStream().loss(net, data.images, data.shown)
    wanted = F.binary_cross_entropy_with_logits(found, data.shown.float())
    torch.testing.assert_close(loss, wanted)
    assert not compute_class_loss(found, data.shown).allclose(
        compute_class_loss(found, data.shown.long().argmax(1))
    )


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (CALM(loss="em"), r"calm cannot be trained on images with several labels: its p\(y\|x\)"),
        (LCAMFm(labels="given"), r"labels='given' takes one class an image.*labels='predicted'"),
    ],
)
def test_methods_of_one_label_refuse_several_before_anything_is_written(method, message, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=message):
        xcam.fit(ColorNet(), Colors(8), method, epochs=1, batch_size=8, out=out)
    assert not out.exists()


@pytest.mark.parametrize("listed", [True, False])
def test_validation_that_shows_no_class(listed, tmp_path):
    nothing = Colors(6, seed=1, listed=listed)
    nothing.shown[:] = False
    settings = {"epochs": 2, "batch_size": 8, "validation": nothing, "out": tmp_path / "run"}
    if listed:
        with pytest.raises(ValueError, match="no image of validation shows a class, and the best"):
            xcam.fit(ColorNet(), Colors(8), **settings)
        assert not (tmp_path / "run" / "log.csv").exists()
        return
    net = xcam.fit(ColorNet(), Colors(8), **settings)  # the last of equals is the best
    last = xcam.load(tmp_path / "run" / "last.safetensors", ColorNet())
    assert torch.equal(net.fc.weight, last.fc.weight)
    assert pd.read_csv(tmp_path / "run" / "log.csv")["validation_map"].isna().all()


def test_castream_learns_by_a_criterion():
    data = Colors(8)
    same = {
        "method": "castream",
        "epochs": 1,
        "batch_size": 8,
        "optimizer": {"name": "SGD", "lr": 1.0},
    }
    plain, own, other = (
        xcam.fit(ColorNet(), data, criterion=one, **same).head.blocks[-1].project.weight
        for one in (None, nn.BCEWithLogitsLoss(), nn.BCEWithLogitsLoss(reduction="sum"))
    )
    torch.testing.assert_close(own, plain)
    assert not other.allclose(plain)


class OneLabel(CAStream):
    """A method that has never heard of several labels."""

    def loss(self, net, images, labels):
        found = net(images)
        return F.cross_entropy(found, labels), found


def test_method_whose_loss_fails_on_several_labels_is_refused():
    with pytest.raises(ValueError, match="loss of castream fails on images with several labels"):
        xcam.fit(ColorNet(), Colors(8), OneLabel(), epochs=1, batch_size=8)


class OwnLoss(ColorNet):
    """A net whose loss has never heard of several labels."""

    def training_loss(self, images, labels):
        found = self(images)
        return F.cross_entropy(found, labels), found


def test_net_whose_own_loss_fails_on_several_labels_is_refused():
    with pytest.raises(ValueError, match=r"^the loss fails on images with several labels"):
        xcam.fit(OwnLoss(), Colors(8), epochs=1, batch_size=8)


class Mixed(Colors):
    """Of which one image has a single label."""

    def __getitem__(self, index):
        image, labels = super().__getitem__(index)
        return image, 1 if index == 5 else labels


@pytest.mark.parametrize("workers", [0, 2])
def test_labels_of_both_kinds_are_refused(workers):
    with pytest.raises(ValueError, match=r"image 5 of data: the label is an integer, and the firs"):
        xcam.fit(ColorNet(), Mixed(8, listed=False), epochs=1, batch_size=4, workers=workers)
    assert multiprocessing.active_children() == []


def test_validation_of_one_label_is_refused():
    validation = TensorDataset(Colors(4).images, torch.tensor([0, 1, 2, 0]))
    with pytest.raises(ValueError, match="image 0 of validation: the label is an integer"):
        xcam.fit(ColorNet(), Colors(8), epochs=1, batch_size=4, validation=validation)


@pytest.mark.parametrize("given", [{"mix": {"mixup": 0.2}}, {"label_smoothing": 0.1}])
def test_settings_of_one_label_are_refused(given):
    with pytest.raises(ValueError, match="mix and label_smoothing are for images of one label"):
        xcam.fit(ColorNet(), Colors(8), epochs=1, batch_size=4, **given)


def test_labels_of_another_number_of_classes_are_refused():
    data = TensorDataset(Colors(4).images, torch.ones(4, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="labels of 5 classes are given for the model's 3"):
        xcam.fit(ColorNet(), data, epochs=1, batch_size=4)
    with pytest.raises(ValueError, match="labels of 5 classes are given for the model's 3"):
        xcam.accuracy(ColorNet(), data)


def test_loaders_and_subsets_are_taken():
    data = Colors(12)
    loader = DataLoader(Subset(data, range(6)), batch_size=4)
    found = xcam.accuracy(ColorNet(), loader)
    assert found["n"].tolist() == [*data.shown[:6].sum(0).tolist(), 6]


def test_processes_share_the_images_of_the_average_precision(monkeypatch):
    """A second process that has the last two of four images."""
    scores, labels = torch.rand(4, 3), torch.rand(4, 3) > 0.5

    def gather(found, own):
        found[0], found[1] = own, (scores[2:], labels[2:])

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    runtime = Runtime(Processes(rank=0, count=2), torch.device("cpu"), "full")
    rows = gather_rows([(scores[:1], labels[:1]), (scores[1:2], labels[1:2])], 3, runtime)
    assert torch.equal(rows[0], scores)
    assert torch.equal(rows[1], labels)


def test_roar_refuses_several_labels():
    with pytest.raises(ValueError, match="roar compares accuracies, and image 0 of train has sev"):
        PlainImages.open(Colors(4), "train")
