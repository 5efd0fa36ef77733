"""Labels that number other classes than the model's are refused, where both are known."""

import dataclasses

import pytest
from evaluations import Pictures, evaluate, loader
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import to_tensor
from torchvision.utils import save_image

import xcam
from xcam._evaluate.work import check_categories
from xcam.models import Normalized
from xcam.models.toy import GapNet


@pytest.fixture
def folder(tmp_path):
    """Five pictures in folders of three classes; the net has five classes."""
    data = Pictures(5)
    for index, image in enumerate(data.images):
        path = tmp_path / "pictures" / f"class{index % 3}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(image, path)
    return xcam.data.folder(tmp_path / "pictures", 16)


@pytest.mark.parametrize("asked", [{"target": "label"}, {"metrics": "accuracy"}])
@pytest.mark.parametrize("given", [lambda d: d, loader, lambda d: loader(Subset(d, [4, 0]))])
def test_labels_of_other_classes_are_refused(folder, tmp_path, asked, given):
    sentence = r"its 3 classes \(class0, class1, class2\), and 'GapNet' has 5 classes: give"
    with pytest.raises(ValueError, match=sentence):
        evaluate(given(folder), out=tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_unused_labels_are_not_checked(folder):
    assert evaluate(folder, controls=False).errors().empty
    fits = {"model": GapNet(num_classes=3), "target": "label", "controls": False}
    assert evaluate(folder, **fits).errors().empty


def test_labels_that_the_caller_numbered_are_accepted(folder):
    """Labels of a list, of `relabel`, and of data sets from elsewhere."""
    own = [
        dataclasses.replace(folder, classes=()),
        xcam.data.relabel(folder, [4, 4, 4, 0, 0]),
        ImageFolder(folder.paths[0].parent.parent, to_tensor, lambda label: label + 2),
    ]
    for data in own:
        assert evaluate(data, target="label", controls=False).errors().empty


def test_categories_in_another_order_are_refused():
    net, images = Normalized(GapNet(num_classes=3), (0.5,), (0.5,)), Pictures(1).images
    net.categories = ("a", "b", "c")
    check_categories(("a", "b", "c"), {"net": net}, images)
    net.categories = ("c", "b", "a")
    with pytest.raises(ValueError, match="'net' has 3 classes, in another order: give a folder"):
        check_categories(("a", "b", "c"), {"net": net}, images)
    net.categories = ("cat", "dog", "owl")  # other words for them, perhaps
    check_categories(("a", "b", "c"), {"net": net}, images)
