"""The table of right answers, by class."""

import pytest
import torch
from nets import mixed, unchanged
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trainings import Net, Noisy

import xcam
from xcam.models import Normalized


class Fixed(nn.Module):
    """Its logits are the first pixels of the image."""

    def __init__(self, classes):
        super().__init__()
        self.classes_ = classes
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.scale * images[:, 0, 0, : self.classes_]


def answers(rows, labels):
    images = torch.zeros(len(rows), 1, 2, 8)
    images[:, 0, 0, : len(rows[0])] = torch.tensor(rows)
    return TensorDataset(images, torch.tensor(labels))


def test_accuracy_table_matches_a_hand_computed_one():
    data = answers(
        [[3.0, 2, 1], [1, 3, 2], [2, 3, 1], [1, 2, 3], [3, 2, 1]],
        [0, 0, 0, 1, 1],
    )
    table = xcam.accuracy(Fixed(3), data)
    assert list(table) == ["class", "n", "correct", "accuracy", "top2"]
    assert table["class"].tolist() == [0, 1, 2, "all"]
    assert table["n"].tolist() == [3, 2, 0, 5]
    assert table["correct"].tolist() == [1, 0, 0, 1]
    assert table["accuracy"].iloc[[0, 1, 3]].tolist() == pytest.approx([1 / 3, 0, 0.2])
    assert table["top2"].iloc[[0, 1, 3]].tolist() == pytest.approx([2 / 3, 1, 0.8])
    assert table["accuracy"].isna().tolist() == [False, False, True, False]


def test_top_five_of_more_classes():
    data = answers([[6.0, 5, 4, 3, 2, 1, 0]] * 3, [0, 4, 5])
    table = xcam.accuracy(Fixed(7), data)
    assert table.columns[-1] == "top5"
    assert table["top5"].iloc[-1] == pytest.approx(2 / 3)


@pytest.mark.parametrize("owner", ["data", "model"])
def test_names_of_classes(owner):
    data, model = Noisy(6), Normalized(Net(), (0.5,), (0.5,))
    if owner == "data":
        data.classes = ["a", "b", "c"]
    else:
        model.categories = ("a", "b", "c")
    assert xcam.accuracy(model, data)["class"].tolist() == ["a", "b", "c", "all"]


def test_accuracy_is_independent_of_the_batch_and_leaves_the_model_unchanged():
    model = mixed(Net())
    with unchanged(model):
        table = xcam.accuracy(model, Noisy(11))
    for arguments in ({"batch_size": 1}, {"batch_size": 4, "workers": 2}, {"precision": "full"}):
        assert table.equals(xcam.accuracy(model, Noisy(11), **arguments))
    assert table.equals(xcam.accuracy(model, DataLoader(Noisy(11), batch_size=3)))


def test_accuracy_runs_on_a_named_device():
    model = Net()
    assert xcam.accuracy(model, Noisy(6), device="cpu").equals(xcam.accuracy(model, Noisy(6)))


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"data": []}, ValueError, "data holds no images"),
        (
            {"data": Noisy(6), "batch_size": 0},
            ValueError,
            "batch_size must be an int of at least 1",
        ),
        ({"data": answers([[1.0, 2, 3]], [3])}, ValueError, "label 3 is out of range"),
        ({"data": Noisy(6), "model": len}, TypeError, "must be a torch.nn.Module"),
    ],
)
def test_bad_input(arguments, error, sentence):
    arguments = {"model": Fixed(3), **arguments}
    with pytest.raises(error, match=sentence):
        xcam.accuracy(arguments.pop("model"), arguments.pop("data"), **arguments)
