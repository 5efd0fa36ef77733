import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.models import default_layer, load
from xcam.models.cifar.densenet import CifarDenseNet
from xcam.models.cifar.resnet import CifarResNet
from xcam.models.cifar.resnext import CifarResNeXt
from xcam.models.cifar.wide_resnet import CifarWideResNet

# The smallest of each kind: a net, its options, the layer that the classifier reads.
SMALL = {
    "basic": ("cifar_resnet", {"depth": 14}, "stage3"),
    "bottleneck": ("cifar_resnet", {"depth": 14, "block": "bottleneck"}, "stage3"),
    "densenet": ("cifar_densenet", {"depth": 16, "growth": 6}, "norm"),
    "resnext": (
        "cifar_resnext",
        {"depth": 20, "cardinality": 4, "base_width": 4, "widen": 1},
        "stage3",
    ),
    "wide_resnet": ("cifar_wide_resnet", {"depth": 16, "widen": 2}, "norm"),
}


def seeded(make, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def made(kind, **options):
    name, small, _ = SMALL[kind]
    return seeded(lambda: load(f"xcam:{name}", **small, **options)).model


@pytest.fixture(params=SMALL)
def small(request):
    """Return a small net in eval mode whose batch norms are not the identity."""
    net = made(request.param)
    generator = torch.Generator().manual_seed(2)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    net.kind, net.layer = request.param, SMALL[request.param][2]
    return net


def images(number=2, channels=3, size=(32, 32)):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(number, channels, *size, generator=generator)


def on_meta(net, **options):
    with torch.device("meta"):
        return net(**options).eval()


def parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("net", "options", "count"),
    [
        (CifarResNet, {}, 1_704_154),
        (CifarResNet, {"num_classes": 100}, 1_704_154 + 90 * 257),
        (CifarResNet, {"block": "basic"}, 1_730_714),
        (CifarResNet, {"depth": 20}, 272_474),
        (CifarDenseNet, {}, 769_162),
        (CifarDenseNet, {"num_classes": 100}, 800_032),
        (CifarResNeXt, {}, 34_426_698),
        (CifarWideResNet, {}, 36_479_194),
    ],
)
def test_published_parameters(net, options, count):
    assert parameters(on_meta(net, **options)) == count


@pytest.mark.parametrize("n", [7, 9, 18])
def test_parameters_of_bottlenecks_in_closed_form(n):
    """A block from c to 4w channels has cw + 9w² + 4w² weights, and 12w in its norms."""
    total, c = 27 * 16 + 2 * 16, 16
    for w in (16, 32, 64):
        total += c * w + 13 * w**2 + 12 * w + 4 * c * w + 8 * w  # the first, with its projection
        total += (n - 1) * (17 * w**2 + 12 * w)
        c = 4 * w
    assert parameters(on_meta(CifarResNet, depth=6 * n + 2)) == total + 10 * (c + 1)


def test_resnet_110_of_the_papers_has_164_layers():
    net = on_meta(CifarResNet, depth=110)
    layers = [
        name
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and "shortcut" not in name
    ]
    assert len(layers) == 164
    assert [len(stage) for stage in (net.stage1, net.stage2, net.stage3)] == [18, 18, 18]


def test_bottlenecks_begin_at_depth_44():
    assert on_meta(CifarResNet, depth=38).fc.in_features == 64
    assert on_meta(CifarResNet, depth=44).fc.in_features == 256


@pytest.mark.parametrize(
    ("net", "widths"),
    [
        (CifarResNet, (16, 64, 128, 256)),
        (CifarDenseNet, (24, 108, 150, 342)),
        (CifarResNeXt, (64, 256, 512, 1024)),
        (CifarWideResNet, (16, 160, 320, 640)),
    ],
)
def test_shapes_of_the_stages(net, widths):
    net = on_meta(net)
    features = images().to("meta")
    # DenseNet's transitions end a stage, the other nets' strides begin one.
    sides = (32, 16, 8, 8) if isinstance(net, CifarDenseNet) else (32, 32, 16, 8)
    parts = (net.stem, net.stage1, net.stage2, net.stage3)
    for part, width, side in zip(parts, widths, sides, strict=True):
        features = part(features)
        assert features.shape == (2, width, side, side)
    assert net.fc(net.pool(net.norm(features)).flatten(1)).shape == (2, 10)


def test_resnext_has_8_groups_and_the_published_widths():
    grouped = [m for m in on_meta(CifarResNeXt).modules() if getattr(m, "groups", 1) > 1]
    assert [m.groups for m in grouped] == [8] * 9
    assert [m.out_channels for m in grouped] == [512] * 3 + [1024] * 3 + [2048] * 3


@pytest.mark.parametrize(("channels", "size"), [(1, (28, 28)), (4, (64, 40)), (3, (12, 12))])
@pytest.mark.parametrize("kind", SMALL)
def test_any_size_and_channels(kind, channels, size):
    net = made(kind, num_classes=7, in_channels=channels)
    assert net(images(3, channels, size)).shape == (3, 7)


@pytest.mark.parametrize("kind", SMALL)
def test_initial_weights(kind):
    """Convolutions are N(0, 2 / (k² · out)), norms (1, 0)."""
    spreads = []
    for module in made(kind).modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            spreads.append((module.weight.detach() * (fan_out / 2) ** 0.5).flatten())
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all()
            assert module.bias.eq(0).all()
    pooled = torch.cat(spreads)
    standard = torch.tensor([spread.std() for spread in spreads if len(spread) > 2000])
    assert pooled.mean().abs() < 0.02
    assert ((standard - 1).abs() < 0.06).all()
    assert (pooled.abs() > 1.96).float().mean() == pytest.approx(0.05, abs=0.005)  # a normal's


def test_initial_weights_of_the_linear_layers():
    resnet = seeded(CifarResNet).fc
    resnext = seeded(lambda: CifarResNeXt(depth=11, cardinality=1, widen=8)).fc
    assert resnet.weight.abs().max() <= 256**-0.5  # torch's: uniform
    assert resnet.bias.any()
    assert resnext.weight.std().item() == pytest.approx((2 / 2048) ** 0.5, rel=0.05)
    assert not resnext.bias.any()
    assert not CifarWideResNet(depth=10, widen=1).fc.bias.any()


def test_default_layer(small):
    assert default_layer(small, images()) == small.layer


def test_gradcam_in_closed_form(small):
    """Before pooling and one linear layer, Grad-CAM is the class's weights over the features."""
    explanation = xcam.explain(small, images(), 3)
    features = small.norm(small.stage3(small.stage2(small.stage1(small.stem(images())))))
    expected = torch.einsum("c,bchw->bhw", small.fc.weight[3], features) / features[0, 0].numel()
    assert explanation.method.layer == small.layer
    assert_close(explanation.raw, expected.detach(), rtol=1e-4, atol=1e-6)


def test_gradcam_through_normalization():
    net = seeded(lambda: load("xcam:cifar_resnet", depth=8))
    explanation = xcam.explain(net, images(), 0)
    assert explanation.method.layer == "model.stage3"
    assert explanation.maps.shape == (2, 32, 32)


def test_gradients_reach_every_parameter(small):
    loss = F.cross_entropy(small.train()(images(8)), torch.arange(8))
    gradients = torch.autograd.grad(loss, list(small.parameters()))
    assert all(gradient.any() for gradient in gradients)


def test_last_stage_without_stride_keeps_the_resolution(small):
    """An attention branch is made of the last stage at twice the resolution."""
    features = small.stage2(small.stage1(small.stem(images())))
    stage = copy.deepcopy(small.stage3)
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    assert stage(features).shape[2:] == features.shape[2:]
    assert small.stage3(features).shape[2:] == (8, 8)


def test_state_dict_round_trip(small, tmp_path):
    save_file(small.state_dict(), tmp_path / "weights.safetensors")
    loaded = made(small.kind, weights=tmp_path / "weights.safetensors")
    assert torch.equal(loaded(images()), small(images()))


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        (CifarResNet, {"depth": 111}, r"6n \+ 2, such as 110 or 116, got 111"),
        (CifarResNet, {"depth": 2}, r"6n \+ 2, such as 8 or 14, got 2"),
        (CifarResNet, {"depth": 20, "block": "wide"}, "'basic', 'bottleneck' or None, got 'wide'"),
        (CifarDenseNet, {"depth": 101}, r"6n \+ 4, such as 100 or 106, got 101"),
        (CifarDenseNet, {"compression": 0.0}, "above 0 and at most 1, got 0.0"),
        (CifarDenseNet, {"dropout": 1.5}, "1.5"),
        (CifarResNeXt, {"depth": 30}, r"9n \+ 2, such as 29 or 38, got 30"),
        (CifarWideResNet, {"depth": -8}, r"6n \+ 4, such as 10 or 16, got -8"),
    ],
)
def test_bad_arguments_are_refused(net, options, message):
    with pytest.raises(ValueError, match=message):
        net(**options)
