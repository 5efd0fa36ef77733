"""`Normalized.source` makes a net of the same structure again."""

import copy
import pickle

import pytest
from safetensors.torch import save_file
from torchvision import models as torchvision_models

from xcam.models import Normalized, load
from xcam.models.toy import SmallCNN


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("torchvision:shufflenet_v2_x0_5", {"num_classes": 6}),
        ("xcam:gap_net", {"num_classes": 3, "seed": 2}),
        ("xcam:simple_cnn", {"num_classes": 4, "in_channels": 1, "input_size": (28, 20)}),
        ("xcam:cifar_resnet", {"depth": 8, "mean": (0.5,), "std": (0.2,)}),
    ],
)
def test_source_makes_the_net_again(name, options):
    net = load(name, **options)
    assert net.source == (name, options)
    again = load(net.source[0], **net.source[1])
    shapes = {key: value.shape for key, value in net.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes
    assert (again.extra_repr(), again.source) == (net.extra_repr(), net.source)


def test_source_of_a_timm_net():
    pytest.importorskip("timm")
    source = ("timm:vit_tiny_patch16_224", {"img_size": 64, "depth": 1})
    assert load(source[0], **source[1]).source == source


def test_source_of_the_demo_net():
    pytest.importorskip("efficientnet_lite_pytorch")
    source = ("xcam:efficientnet_lite0", {"num_classes": 4})
    assert load(source[0], **source[1]).source == source


def test_source_includes_arguments_that_pretrained_weights_force(monkeypatch):
    """GoogLeNet's weights change how its input is normalized, and remove the auxiliary heads."""
    weights = torchvision_models.GoogLeNet_Weights.DEFAULT
    state = torchvision_models.googlenet(init_weights=False).state_dict()
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *_args, **_kwargs: state)
    net = load("torchvision:googlenet", weights="DEFAULT")
    again = load(net.source[0], **net.source[1])
    assert net.source[1] == {"aux_logits": False, "transform_input": True}
    assert again.model.transform_input
    assert again.state_dict().keys() == net.state_dict().keys()


def test_source_survives_copies():
    net = load("xcam:gap_net", num_classes=3)
    assert copy.deepcopy(net).source == ("xcam:gap_net", {"num_classes": 3})
    assert pickle.loads(pickle.dumps(net)).source == ("xcam:gap_net", {"num_classes": 3})


def test_net_that_load_did_not_make_has_no_source():
    assert Normalized(SmallCNN(), (0.5,), (0.5,)).source is None


def test_source_holds_no_weights(tmp_path):
    save_file(SmallCNN().state_dict(), tmp_path / "weights.safetensors")
    net = load("xcam:small_cnn", weights=tmp_path / "weights.safetensors")
    assert net.source == ("xcam:small_cnn", {})
