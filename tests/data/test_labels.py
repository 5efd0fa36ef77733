"""Replacing the labels of a data set by those that a model predicts."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import xcam
from xcam.data import planted_cues, predict_labels, relabel
from xcam.data.arrays import ImageArrays
from xcam.data.transforms import Pipeline
from xcam.methods import LCAMFm
from xcam.models.toy import SmallCNN

IMAGES = torch.rand(7, 3, 16, 16, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(IMAGES, torch.zeros(7, dtype=torch.long))


def test_labels_are_those_of_the_largest_logit():
    net = SmallCNN().train()
    torch.manual_seed(5)
    labels = predict_labels(net, DATA, batch_size=3)
    assert torch.equal(torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(5)))
    assert net.training
    assert labels.dtype == torch.int64
    assert torch.equal(labels, net.eval()(IMAGES).argmax(1))
    assert len(labels.unique()) > 1


def test_relabel_keeps_the_rest_of_an_item():
    cues = planted_cues(4, 32, 3)
    found = relabel(cues, [5, 6, 7, 8])
    assert len(found) == 4
    assert found.classes == ()
    for index, (image, label, mask) in enumerate(cues):
        assert torch.equal(found[index][0], image)
        assert found[index][1] == 5 + index != label
        assert torch.equal(found[index][2], mask)


def test_relabel_keeps_the_names_of_classes():
    names, data = ("cat", "dog"), [(torch.zeros(3, 4, 4), 0)]
    named = ImageArrays(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), (0,), names, Pipeline())
    assert relabel(named, [1]).classes == names
    assert relabel(data, [1]).classes == ()


def test_stored_labels_train_as_those_on_the_fly(tmp_path):
    """The own labels of the data make no difference."""
    net = SmallCNN()
    np.save(tmp_path / "labels.npy", predict_labels(net, DATA))
    data = relabel(DATA, np.load(tmp_path / "labels.npy"))
    stored = xcam.fit(net, data, LCAMFm(labels="given"), epochs=2, batch_size=4)
    on_the_fly = xcam.fit(net, DATA, LCAMFm(), epochs=2, batch_size=4)
    wrong = xcam.fit(net, DATA, LCAMFm(labels="given"), epochs=2, batch_size=4)
    assert torch.equal(stored.head.weight, on_the_fly.head.weight)
    assert not torch.equal(stored.head.weight, wrong.head.weight)


@pytest.mark.parametrize("labels", [[1, 2], torch.zeros(7), torch.zeros(7, 1, dtype=torch.long)])
def test_bad_labels_are_refused(labels):
    with pytest.raises(ValueError, match="labels must be 7 integers, one an item, got"):
        relabel(DATA, labels)


def test_empty_data_is_refused():
    with pytest.raises(ValueError, match="holds no images"):
        predict_labels(SmallCNN(), [])


@pytest.mark.parametrize(
    "call", [lambda data: predict_labels(SmallCNN(), data), lambda data: relabel(data, [1])]
)
def test_loaders_are_refused(call):
    with pytest.raises(TypeError, match=r"got a DataLoader; give the data set .* loader\.data"):
        call(DataLoader(DATA, 7, shuffle=True))
