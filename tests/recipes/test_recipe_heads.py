"""Heads by recipes: on a classifier and pictures with other classes, and CALM from lists."""

import pytest
import torch
from data_files import write_voc
from torchvision.utils import save_image

import xcam
from xcam import recipes
from xcam.errors import XcamWarning

MODEL = {"name": "xcam:cifar_resnet", "depth": 8, "num_classes": 5}


@pytest.fixture
def own(tmp_path):
    """A folder of pictures in three classes, and a classifier that tells five."""
    generator = torch.Generator().manual_seed(0)
    for label in ("ape", "bee", "cat"):
        (tmp_path / "train" / label).mkdir(parents=True)
        for number in range(3):
            picture = torch.rand(3, 32, 32, generator=generator)
            save_image(picture, tmp_path / "train" / label / f"{number}.png")
    torch.manual_seed(0)
    net = xcam.models.load(**MODEL)
    xcam.save(net, tmp_path / "net.safetensors")
    return tmp_path, net.eval()


def recipe(method, weights, **settings):
    table = recipes.read("lcam_fm_vgg16")
    data = {"name": "folder", "input_size": 32, "crop_size": 32}
    fit = {**table["fit"], "method": method, "epochs": 1, "batch_size": 4, **settings}
    return {"model": {**MODEL, "weights": weights}, "data": data, "fit": fit}


@pytest.mark.parametrize("method", ["lcam_fm", "lcam_img"])
def test_labels_that_are_not_asked_may_be_others(own, method):
    folder, model = own
    net = recipes.fit(recipe(method, str(folder / "net.safetensors")), folder, folder / "run")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(net(images), model(images))
    assert net.categories == ()  # five classes, of which the folder names none
    assert xcam.explain(net, images, 4).maps.shape == (2, 32, 32)


def test_labels_that_are_asked_must_be_the_classifiers(own):
    folder, _ = own
    chosen = recipe("lcam_fm", str(folder / "net.safetensors"), labels="given")
    with pytest.raises(ValueError, match="has 5 classes and the data have 3"):
        recipes.fit(chosen, folder)


@pytest.mark.parametrize("weights", [None, "none"])
def test_predictions_of_a_classifier_that_is_not_trained_teach_nothing(own, weights):
    folder, _ = own
    with pytest.raises(ValueError, match="lcam_fm learns what a trained classifier predicts, and"):
        recipes.fit(recipe("lcam_fm", weights), folder, folder / "run")
    assert not (folder / "run").exists()


def test_stream_is_trained_on_a_trained_classifier(own, monkeypatch):
    """Two steps of both recipes; a frozen classifier as it is drawn is refused."""
    folder, _ = own
    model = {**MODEL, "weights": str(folder / "net.safetensors"), "num_classes": 3}
    torch.manual_seed(0)
    classifier = xcam.models.load(**{**MODEL, "num_classes": 3})
    xcam.save(classifier, folder / "net.safetensors")
    data = {"name": "folder", "input_size": 32, "crop_size": 32}
    for name in ("castream_imagenet_resnet50", "castream_imagenet_resnet50_vit_mod"):
        fit = {**recipes.read(name)["fit"], "epochs": 1, "batch_size": 4}
        fit["ema"] = {**fit["ema"], "warmup": True} if "ema" in fit else None
        table = {"model": model, "data": data, "fit": fit}
        net = recipes.fit(table, folder)
        assert net.method.layers == ("stem", "stage1", "stage2", "stage3")
        images = torch.rand(2, 3, 32, 32)
        assert torch.equal(net.classifier(images), classifier.eval()(images))
        with pytest.raises(ValueError, match="castream learns on a frozen classifier, and the wei"):
            recipes.fit({**table, "model": {**model, "weights": "none"}}, folder)


@pytest.mark.parametrize(
    "files",
    [
        ["ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG"],
        ["train/n01443537/images/n01443537_0.JPEG", "train/n01629819/images/n01629819_0.JPEG"],
        ["airport_inside/airport_inside_0001.jpg", "winecellar/wine_cellar_01.jpg"],
    ],
    ids=["imagenet", "tiny_imagenet", "mit67"],
)
def test_stream_is_trained_from_lists(files, own, monkeypatch):
    """Of files and labels apart by commas, as ImageNet, Tiny-ImageNet and MIT-67 come."""
    folder, model = own
    for file in files:
        path = folder / "data" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(torch.rand(3, 32, 32), path)
    lines = "".join(f"{file},{label}\n" for file, label in zip(files, (4, 0), strict=True))
    (folder / "train.csv").write_text(lines)
    monkeypatch.chdir(folder)
    weights = str(folder / "net.safetensors")
    changes = {f"model.{name}": value for name, value in MODEL.items()}
    changes |= {"model.weights": weights, "data.lists": {"train": "train.csv"}, "epochs": 1}
    changes |= {"data.train": [], "data.test": [], "batch_size": 2, "data.validation": None}
    net = recipes.fit(recipes.read("castream_cub_resnet50", changes), "data")
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(net.classifier(images), model(images))
    assert net.method.spec.name == "castream"


def test_frozen_classifier_of_other_classes_than_the_list_is_told_of(own, monkeypatch):
    """As of ImageNet, beside a list of MIT-67: every label is one of its classes."""
    folder, _ = own
    files = sorted((folder / "train").rglob("*.png"))[:2]
    lines = "".join(f"{file.name},{label}\n" for file, label in zip(files, (2, 0), strict=True))
    (folder / "train.csv").write_text(lines)
    monkeypatch.chdir(folder)
    changes = {f"model.{name}": value for name, value in MODEL.items()}
    changes |= {"model.weights": str(folder / "net.safetensors"), "data.name": "list"}
    changes |= {"data.lists": {"train": "train.csv"}, "data.train": [], "data.test": []}
    changes |= {"data.validation": None, "batch_size": 2, "epochs": 1}
    recipe = recipes.read("castream_imagenet_resnet50", changes)
    sentence = r"classifier of 5 classes is frozen, .* none beyond class 2; .* model.num_classes"
    with pytest.warns(XcamWarning, match=sentence):
        recipes.fit(recipe, files[0].parent)


def test_stream_is_trained_on_several_labels_of_voc(tmp_path):
    """Two steps each: the classifier by the recipe, the stream on it, and its mAP."""
    write_voc(tmp_path / "data")
    small = [{"name": "Resize", "size": [32, 32]}]
    changes = {"model.name": "xcam:cifar_resnet", "model.depth": 8, "epochs": 1, "batch_size": 2}
    changes |= {"data.train": small, "data.test": small, "data.validation": None}
    changes |= {"drop_last": False}
    recipe = recipes.read("castream_voc_resnet50", changes | {"method": None})
    plain = recipes.fit(recipe, tmp_path / "data", tmp_path / "plain")
    with pytest.raises(ValueError, match="castream learns on a frozen classifier, and the weights"):
        recipes.fit(recipes.read("castream_voc_resnet50", changes), tmp_path / "data")
    changes["model.weights"] = str(tmp_path / "plain" / "last.safetensors")
    recipe = recipes.read("castream_voc_resnet50", changes)
    net = recipes.fit(recipe, tmp_path / "data", tmp_path / "run")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(net.classifier(images), plain(images))
    assert (len(net.categories), net.categories[14]) == (20, "person")
    found = recipes.accuracy(recipe, tmp_path / "data", tmp_path / "run" / "last.safetensors")
    assert found.columns.tolist() == ["class", "n", "average_precision"]
    assert found["n"].tolist()[14] == 2
    assert "average_precision" in (tmp_path / "run" / "test.csv").read_text()


@pytest.mark.parametrize("name", ["calm_cub_resnet50", "calm_openimages_resnet50"])
def test_calm_is_trained_from_lists_beside_the_pictures(name, tmp_path, monkeypatch):
    """Two steps from the lists that come with the published code, in their place."""
    images = tmp_path / "pictures" / "001.Some_Bird"
    images.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    kind = recipes.read(name)["data"]["lists"]["train"].split("/")[1]
    for split in ("train", "test"):
        lines = []
        for number in range(4):
            file = f"{split}_{number}.png"
            save_image(torch.rand(3, 40, 60, generator=generator), images / file)
            lines.append(f"001.Some_Bird/{file},{number % 3}")
        path = tmp_path / "metadata" / kind / split / "class_labels.txt"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    small = [{"name": "Resize", "size": [72, 72]}, {"name": "RandomCrop", "size": 64}]
    changes = {"model.weights": None, "model.depth": 18, "model.num_classes": 3, "epochs": 1}
    changes |= {"batch_size": 2, "data.train": small, "data.test": small[:1]}
    recipe = recipes.read(name, changes)
    net = recipes.fit(recipe, "pictures", "run")
    assert (net.method.objective, net.method.prior) == ("em", "softplus")
    state = torch.load("run/training.pt", weights_only=True)["optimizer"]
    rates = {round(group["lr"], 6): len(group["params"]) for group in state["param_groups"]}
    assert rates == {0.1: 19, 0.01: 45}
    found = recipes.accuracy(recipe, "pictures", "run/last.safetensors")
    assert found["n"].iloc[-1] == 4
    maps = xcam.explain(net, torch.rand(1, 3, 64, 64))
    assert maps.raw.shape == (1, 8, 8)
