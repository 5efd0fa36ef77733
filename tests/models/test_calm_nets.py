"""CALM's backbones: sizes of their maps, their widths, and torchvision's weights in them."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import xcam
from xcam.errors import UnknownNameError
from xcam.methods import CALM
from xcam.methods.trainable.taps import Place, features

NETS = [
    ("calm_resnet", {"depth": 18}, "layer4", 512),
    ("calm_resnet", {"depth": 34}, "layer4", 512),
    ("calm_resnet", {}, "layer4", 2048),
    ("calm_resnet", {"depth": 101}, "layer4", 2048),
    ("calm_vgg16", {}, "relu6", 1024),
    ("calm_vgg16", {"use_bn": True}, "relu6", 1024),
    ("calm_inception_v3", {}, "SPG_A3_2b", 1024),
    ("calm_inception_v3", {"use_bn": True, "released": True}, "SPG_A3_2b", 1024),
]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(("name", "settings", "layer", "width"), NETS)
def test_last_feature_map(name, settings, layer, width, large):
    with torch.device("meta"):
        net = xcam.models.load(f"xcam:{name}", num_classes=7, large_feature_map=large, **settings)
        calm = CALM().attach(net)
        found = features(calm, torch.zeros(1, 3, 224, 224), Place(layer))
    assert calm.method.layer == layer
    assert found.shape == (1, width, *(2 * [28 if large else 14]))
    assert net.input_size == (224, 224)


def fake_weights(monkeypatch, original):
    """Entries of torchvision whose weights are of a net that is drawn here."""
    torch.manual_seed(4)
    quick = {} if "resnet" in original else {"init_weights": False}
    net = torchvision.models.get_model(original, **quick)
    with torch.no_grad():
        for buffer in net.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    entries = torchvision.models.get_model_weights(original)
    monkeypatch.setattr(entries, "get_state_dict", lambda *_, **__: net.state_dict())
    return net.eval()


def test_resnet_takes_torchvisions_weights_but_for_the_last_layer(monkeypatch):
    original = fake_weights(monkeypatch, "resnet18")
    net = xcam.models.load("xcam:calm_resnet", "IMAGENET1K_V1", depth=18, num_classes=3).model
    state = original.state_dict()
    for name, tensor in net.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(tensor, state[name]), name
    images = torch.rand(1, 3, 64, 64)
    stem = nn.Sequential(original.conv1, original.bn1, original.relu, original.maxpool)
    before = original.layer3(original.layer2(original.layer1(stem(images))))
    block = original.layer4[0]
    for convolution in (block.conv1, block.downsample[0]):
        convolution.stride = (1, 1)
    torch.testing.assert_close(net(images), net.fc(original.layer4(before).mean((2, 3))))


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("use_bn", [False, True])
def test_vgg_takes_torchvisions_weights_under_other_numbers(monkeypatch, use_bn, large):
    original = fake_weights(monkeypatch, "vgg16_bn" if use_bn else "vgg16")
    settings = {"use_bn": use_bn, "large_feature_map": large, "num_classes": 3}
    net = xcam.models.load("xcam:calm_vgg16", "IMAGENET1K_V1", **settings).model
    pools = [m for m in original.features if isinstance(m, nn.MaxPool2d)]
    kept = [m for m in original.features if m not in (pools[3:] if large else pools[4:])]
    images = torch.rand(1, 3, 48, 48)
    torch.testing.assert_close(net.features(images), nn.Sequential(*kept)(images))


def test_released_vgg_leaves_out_running_statistics_behind_the_pooling(monkeypatch):
    original = fake_weights(monkeypatch, "vgg16_bn")
    for large, taken in ((False, 13), (True, 10)):
        settings = {"use_bn": True, "large_feature_map": large, "released": True}
        net = xcam.models.load("xcam:calm_vgg16", "IMAGENET1K_V1", **settings).model
        norms, others = (
            [m for m in each.features if isinstance(m, nn.BatchNorm2d)] for each in (net, original)
        )
        pairs = list(zip(norms, others, strict=True))
        assert [torch.equal(a.weight, b.weight) for a, b in pairs] == [True] * 13
        means = [torch.equal(a.running_mean, b.running_mean) for a, b in pairs]
        assert means == [True] * taken + [False] * (13 - taken)


@pytest.mark.parametrize("released", [False, True])
def test_inception_by_its_parts(monkeypatch, released):
    original = fake_weights(monkeypatch, "inception_v3")
    settings = {"num_classes": 3, "released": released}
    net = xcam.models.load("xcam:calm_inception_v3", "IMAGENET1K_V1", **settings).model
    images = torch.rand(1, 3, 96, 96)
    original.Conv2d_1a_3x3.conv.padding = (1, 1)
    stem = original.Conv2d_2b_3x3(original.Conv2d_2a_3x3(original.Conv2d_1a_3x3(images)))
    half = F.max_pool2d(stem, 3, 2, padding=1, ceil_mode=True)
    quarter = original.Conv2d_4a_3x3(original.Conv2d_3b_1x1(half))
    found = F.max_pool2d(quarter, 3, 2, padding=1, ceil_mode=True)
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        found = original.get_submodule(name)(found)
    found = F.max_pool2d(found, 3, 2, ceil_mode=True)
    block = original.Mixed_6a
    for convolution in (block.branch3x3.conv, block.branch3x3dbl_3.conv):
        convolution.stride, convolution.padding = (1, 1), (1, 1)
    double = block.branch3x3dbl_3(block.branch3x3dbl_2(block.branch3x3dbl_1(found)))
    pooled = F.max_pool2d(found, 3, stride=1, padding=1)
    found = torch.cat([block.branch3x3(found), double, pooled], 1)
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", *([] if released else ["Mixed_6e"])):
        found = original.get_submodule(name)(found)
    last = net.SPG_A3_2b(net.SPG_A3_1b(found)).mean((2, 3))
    torch.testing.assert_close(net(images), net.fc(last))


def test_initial_weights():
    """Glorot's bound for ResNet, He's deviation by fan-out for VGG; biases are 0."""
    resnet = xcam.models.load("xcam:calm_resnet", depth=18, num_classes=50)
    bound = (6 / (9 * (512 + 512))) ** 0.5
    assert 0.99 * bound < resnet.model.layer4[1].conv1.weight.abs().max() <= bound
    vgg = xcam.models.load("xcam:calm_vgg16", num_classes=50)
    deviation = float(vgg.model.conv6.weight.detach().std())
    assert deviation == pytest.approx((2 / (1024 * 9)) ** 0.5, rel=0.01)
    for net, expected in ((resnet, (2 / (512 + 50)) ** 0.5), (vgg, (2 / 50) ** 0.5)):
        convolution = CALM().attach(net).head.conv_last
        assert float(convolution.weight.detach().std()) == pytest.approx(expected, rel=0.02)
        assert not convolution.bias.any()


def test_what_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="depth must be one of 18, 34, 50, 101, got 152"):
        xcam.models.load("xcam:calm_resnet", depth=152)
    with pytest.raises(TypeError, match="use_bn"):
        xcam.models.load("xcam:calm_resnet", use_bn=True)
    with pytest.raises(UnknownNameError, match="weights of xcam:calm_vgg16"):
        xcam.models.load("xcam:calm_vgg16", "IMAGENET")


def test_net_comes_back_from_a_file(tmp_path):
    net = CALM().attach(xcam.models.load("xcam:calm_resnet", depth=18, num_classes=3))
    net.fitted = True
    xcam.save(net, tmp_path / "net.safetensors")
    again, images = xcam.load(tmp_path / "net.safetensors"), torch.rand(1, 3, 64, 64)
    assert torch.equal(again(images), net.eval()(images))
