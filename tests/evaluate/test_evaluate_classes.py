"""Labels are compared with the classes of a model by name, or refused."""

import dataclasses

import pytest
from colored import color_net, colored_folder
from evaluations import Pictures, evaluate, loader, rows
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import to_tensor
from torchvision.utils import save_image

import xcam
from xcam.explanations.folder import StoredMaps
from xcam.models.toy import GapNet
from xcam.results.figures import _read_labels


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


CLASSES = {"metrics": "accuracy", "target": "label", "controls": False}


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0)])
@pytest.mark.parametrize("classes", [["cat", "dog", "fox"], ["dog", "fox"]])
def test_labels_are_compared_by_name(tmp_path, order, classes):
    ours = colored_folder(tmp_path / "data", classes)
    theirs = ImageFolder(tmp_path / "data", to_tensor)
    for number, data in enumerate((ours, theirs, Subset(theirs, range(len(ours))))):
        out = tmp_path / str(number)
        results = evaluate(data, model=color_net(order), out=out, **CLASSES)
        assert results.table()["value"].tolist() == [1.0]
        names = [color_net(order).categories[row["label"]] for row in rows(out)]
        assert names == [name for name in classes for _ in range(2)]


def test_models_with_other_orders_share_the_data(tmp_path):
    data = colored_folder(tmp_path / "data", ["dog", "fox"])
    nets = {"one": color_net(), "two": color_net((2, 1, 0)), "bare": color_net(names=())}
    with pytest.raises(ValueError, match=r"'bare' has 3 classes: give"):
        evaluate(data, model=nets, **CLASSES)
    del nets["bare"]
    out = tmp_path / "out"
    table = evaluate(data, model=nets, out=out, **CLASSES).table()
    assert table["value"].tolist() == [1.0, 1.0]
    nets["two"].categories = ("cat", "dog", "fox")  # the labels are others now
    with pytest.raises(ValueError, match="labels"):
        evaluate(data, model=nets, out=out, **CLASSES)


def test_other_names_are_refused_with_both_lists(tmp_path):
    data = colored_folder(tmp_path / "data", ["dog", "fox", "owl"])
    sentence = r"data are dog, fox, owl; those of 'ColorNet' are cat, dog, fox; .* has no owl: ren"
    with pytest.raises(ValueError, match=sentence):
        evaluate(data, model=color_net(), **CLASSES)
    evaluate(data, model=color_net(), controls=False, out=tmp_path / "out")
    # No label, rather than the number of another class.
    assert {row["label"] for row in rows(tmp_path / "out")} == {None}


def test_stored_maps_are_found_by_the_name_of_their_class(tmp_path):
    data = colored_folder(tmp_path / "data", ["cat", "dog", "fox"])
    one, two = color_net(), color_net((1, 2, 0))
    evaluate(data, "gradcam", model=one, out=tmp_path / "one", save_maps=True, controls=False)
    maps = tmp_path / "one" / "maps" / "gradcam"
    assert StoredMaps(maps).categories == dict(enumerate(one.categories))
    kept = evaluate(data, (), model=two, maps=maps, controls=False)
    assert kept.errors().empty
    own = evaluate(data, "gradcam", model=two, controls=False)
    assert kept.table()["value"].tolist() == pytest.approx(own.table()["value"].tolist(), abs=1e-2)
    two.categories = ("ape", "bee", "cow")
    with pytest.raises(ValueError, match=r"maps in .* are of the classes cat, dog, fox, and those"):
        evaluate(data, (), model=two, maps=maps, controls=False)


def test_figure_explains_labels_by_name(tmp_path):
    data = colored_folder(tmp_path, ["dog", "fox"])
    items = [data[index] for index in (0, 2)]
    assert _read_labels(color_net(), data, items).tolist() == [1, 2]
    assert _read_labels(color_net(names=()), data, items).tolist() == [0, 1]
