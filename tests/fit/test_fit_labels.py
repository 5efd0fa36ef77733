"""Labels that are no classes are found before the first step, wherever they are."""

import reprlib
from enum import IntEnum
from pathlib import Path

import numpy as np
import pytest
import torch
from colored import color_net, colored_folder
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader
from torchvision.transforms.functional import to_tensor
from trainings import Noisy, log, plain

import xcam


class Plain(Dataset):
    """Images and labels that no attribute lists; it notes its items."""

    def __init__(self, labels):
        self.pairs = [(torch.rand(3, 8, 8), label) for label in labels]
        self.loaded = []

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        self.loaded.append(index)
        return self.pairs[index]


class Listed(Plain):
    """The same with a list of labels, which may lie."""

    def __init__(self, labels, listed=None):
        super().__init__(labels)
        self.targets = labels if listed is None else listed


def tensors(labels):
    return TensorDataset(torch.rand(len(labels), 3, 8, 8), torch.tensor(labels))


GOOD = [0, 1, 2, 1, 0]


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: Listed([*GOOD, 7]), ValueError, "image 5 of {}: label 7 is out of range"),
        (lambda: Listed([*GOOD, -1]), ValueError, "image 5 of {}: label -1 is out of range"),
        (lambda: Listed([*GOOD, 1.5]), TypeError, "image 5 of {}: the label must be an int"),
        (lambda: Plain([*GOOD, 3]), ValueError, "image 5 of {}: label 3 is out of range"),
        (lambda: Plain([*GOOD, 0.5]), TypeError, "image 5 of {}: the label must be an int"),
        (lambda: tensors([*GOOD, 9]), ValueError, "image 5 of {}: label 9"),
        (lambda: Subset(tensors([9, *GOOD, 9]), range(1, 7)), ValueError, "image 5 of {}: label 9"),
        (lambda: ConcatDataset([Listed(GOOD), tensors([4])]), ValueError, "image 5 of {}: label 4"),
        (lambda: xcam.data.relabel(tensors(GOOD), [0, 1, 5, 0, 0]), ValueError, "image 2 of {}: "),
        (lambda: Listed([0, 1, 6], [0, 1, 2]), ValueError, None),
    ],
)
def test_bad_label_is_found_before_the_first_step(make, error, sentence, part, tmp_path):
    train, data = Noisy(6), make()
    if sentence is None:  # a list that is not that of the items: found when it is measured
        with pytest.raises(error, match="label 6 is out of range"):
            plain(train, out=tmp_path / "run", **{part: data})
        return
    with pytest.raises(error, match=sentence.format(part)):
        plain(train, out=tmp_path / "run", **{part: data})
    assert set(train.loaded) == {0}
    assert not any((tmp_path / "run").iterdir())


def test_labels_of_folders_are_found_without_reading_pictures(tmp_path):
    colored_folder(tmp_path, {"a": "cat", "b": "dog", "c": "fox", "d": "owl"})
    loaded = []

    def load(path):
        loaded.append("/".join(Path(path).parts[-2:]))
        return default_loader(path)

    data = ImageFolder(tmp_path, to_tensor, lambda label: label, load)
    with pytest.raises(ValueError, match=r"image 6 of validation: label 3 is out of range"):
        plain(_train(), color_net(names=()), validation=data)
    assert set(loaded) == {"a/0.png", "d/0.png"}


def _train():
    return TensorDataset(torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 0]))


def test_listed_labels_cost_two_items_and_others_one_pass(tmp_path):
    listed, unlisted = Listed(GOOD), Plain(GOOD)
    plain(Noisy(6), out=tmp_path / "run", validation=listed, test=unlisted)
    assert sorted(listed.loaded) == sorted([0] * (listed.loaded.count(0) - 1) + [0, 1, 2, 3, 4])
    assert [unlisted.loaded.count(index) for index in range(1, 5)] == [2] * 4
    unlisted.loaded.clear()
    plain(Noisy(6), out=tmp_path / "run", validation=listed, test=unlisted, epochs=2)
    assert [unlisted.loaded.count(index) for index in range(1, 5)] == [1] * 4  # it was checked


@pytest.mark.parametrize("listed", [[1, 2, 3, 2, 1], list("abcba"), [0, 1, 9, 1, 0], [0]])
def test_list_that_is_not_of_the_items_refuses_nothing(listed, tmp_path):
    plain(Noisy(6), validation=Listed(GOOD, listed), out=tmp_path)
    assert len(log(tmp_path)) == 1


NO_INTEGERS = ["cat", None, [0, 1], 1.0, True, np.bool_(1), torch.tensor([1]), np.eye(3)]


@pytest.mark.parametrize(("label", "workers"), [("cat", 1), *((label, 0) for label in NO_INTEGERS)])
def test_label_that_is_no_integer_is_refused_with_its_image(label, workers):
    wrong = [*GOOD, label]
    refused = pytest.raises(
        TypeError, match=r"^image 5 of \w+: the label must be an integer, the n"
    )
    train = Noisy(6)
    with refused as caught:
        plain(train, validation=Plain(wrong), workers=workers)
    assert f"got {reprlib.repr(label)}; xcam.data.relabel gives" in str(caught.value)
    assert set(train.loaded) == {0}
    relabeled = xcam.data.relabel(Plain(wrong), [*GOOD, 2])  # the remedy
    assert plain(train, validation=relabeled) is not None
    with refused:
        plain(Plain(wrong), workers=workers)
    with refused:
        xcam.accuracy(color_net(), Plain(wrong), workers=workers)


@pytest.mark.parametrize(
    "kind", [int, np.int64, np.uint8, np.array, torch.tensor, IntEnum("K", "a")]
)
def test_integers_of_any_kind_are_labels(kind):
    table = xcam.accuracy(color_net(), Plain([kind(1)] * 3))
    assert table["n"].tolist() == [0, 3, 0, 3]


@pytest.mark.parametrize(("label", "workers"), [(3, 0), (-1, 0), (3, 1)])
def test_wrong_training_label_is_refused_with_its_image(label, workers, tmp_path):
    sentence = f"^image 4 of data: label {label} is out of range: the model has 3 classes, 0 to 2$"
    wrong = [0, 1, 2, 1, label, 0]
    listed, unlisted = Listed(wrong), Plain(wrong)
    for data in (listed, unlisted, tensors(wrong), Subset(tensors([9, *wrong]), range(1, 7))):
        with pytest.raises(ValueError, match=sentence):
            plain(data, out=tmp_path / "run", workers=workers)
    assert set(listed.loaded) == {0, 4}  # before the first step
    first = Plain([label, *GOOD])
    with pytest.raises(ValueError, match=f"^image 0 of data: label {label} is out of range"):
        plain(first)


def test_label_beyond_the_names_is_refused_with_its_image(tmp_path):
    data = colored_folder(tmp_path, ["dog", "fox"])

    class Beyond(Dataset):
        classes = data.classes

        def __len__(self):
            return len(data)

        def __getitem__(self, index):
            return data[index][0], index

    with pytest.raises(
        ValueError, match=r"^image 2 of validation: label 2 .*: the data names 2 cl"
    ):
        plain(_train(), color_net(), validation=Beyond())


def test_labels_that_a_collate_function_makes_are_taken():
    def collate(items):
        return torch.stack([image for image, _ in items]), torch.tensor([int(n) for _, n in items])

    loader = DataLoader(Plain(list("01210")), batch_size=5, collate_fn=collate)
    assert xcam.accuracy(color_net(), loader)["n"].tolist() == [2, 2, 1, 5]
