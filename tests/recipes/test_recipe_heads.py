"""A head by a recipe on a classifier and pictures of one's own, whose classes are others."""

import pytest
import torch
from torchvision.utils import save_image

import xcam
from xcam import recipes

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
