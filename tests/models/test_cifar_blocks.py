"""The blocks of the CIFAR nets agree with torchvision's, and with closed forms."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchvision.models import DenseNet
from torchvision.models.resnet import BasicBlock, Bottleneck

from xcam.models.cifar.densenet import CifarDenseNet
from xcam.models.cifar.resnet import CifarResNet
from xcam.models.cifar.resnext import CifarResNeXt
from xcam.models.cifar.wide_resnet import CifarWideResNet


def features(width, side=8):
    return torch.randn(2, width, side, side, generator=torch.Generator().manual_seed(0))


def drawn(net):
    """Return the net in eval mode, with all its state drawn at random."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in net.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif tensor.is_floating_point():
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return net.eval()


def filled(theirs, ours):
    """Return their module with the state of ours, which has the same order."""
    names, tensors = theirs.state_dict().keys(), ours.state_dict().values()
    theirs.load_state_dict(dict(zip(names, tensors, strict=True)))
    return theirs.eval()


def beside(block, before, planes, stride, **options):
    """Return torchvision's block, with its projection where the shape changes."""
    after = planes * block.expansion
    projection = None
    if stride != 1 or before != after:
        convolution = nn.Conv2d(before, after, 1, stride, bias=False)
        projection = nn.Sequential(convolution, nn.BatchNorm2d(after))
    return block(before, planes, stride, projection, **options)


@pytest.mark.parametrize(
    ("stage", "block", "planes", "options"),
    [
        (lambda: CifarResNet(depth=14).stage2, BasicBlock, 32, {}),
        (lambda: CifarResNet(depth=14, block="bottleneck").stage1, Bottleneck, 16, {}),
        (lambda: CifarResNet(depth=14, block="bottleneck").stage3, Bottleneck, 64, {}),
        (
            lambda: CifarResNeXt(depth=20, cardinality=4, base_width=8, widen=1).stage2,
            Bottleneck,
            32,
            {"groups": 4, "base_width": 32},  # 32 · 32/64 · 4 = 4 · 8 · 2 wide
        ),
    ],
)
def test_residual_stages_beside_torchvision(stage, block, planes, options):
    stage = drawn(stage())
    before, after = stage[0].branch[0].in_channels, planes * block.expansion
    stride = 1 if planes == 16 else 2
    theirs = nn.Sequential(
        beside(block, before, planes, stride, **options), beside(block, after, planes, 1, **options)
    )
    given = features(before)
    output = stage(given.clone())
    assert_close(output, filled(theirs, stage)(given))
    assert output.shape == (2, after, 8 // stride, 8 // stride)


def test_densenet_beside_torchvision():
    ours = drawn(CifarDenseNet(depth=16, growth=4, num_classes=6))
    theirs = DenseNet(4, (2, 2, 2), 8, num_classes=6)
    theirs.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), *theirs.features[4:])
    images = features(3, 32)
    assert_close(ours(images), filled(theirs, ours)(images))


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_residual_block_with_a_zero_branch_is_its_shortcut(block):
    first, second = CifarResNet(depth=14, block=block).eval().stage2
    for residual in (first, second):
        nn.init.zeros_(residual.branch[-1].weight)
    before, after = first.branch[0].in_channels, second.branch[0].in_channels
    assert torch.equal(first(features(before)), first.shortcut(features(before)).relu())
    assert torch.equal(second(features(after)), features(after).relu())


def test_wide_block_with_a_zero_branch_is_its_shortcut():
    """A projection reads the activated features; without one, the input passes unchanged."""
    first, second = CifarWideResNet(depth=16, widen=2).eval().stage2
    for block in (first, second):
        nn.init.zeros_(block.branch[-1].weight)
    normalized = features(32) / (1 + 1e-5) ** 0.5
    assert_close(first(features(32)), first.projection(normalized.relu()))
    assert torch.equal(second(features(64)), features(64))


def test_wide_block_matches_its_formula():
    block = drawn(CifarWideResNet(depth=10, widen=1).stage1[0])
    norm, (conv, inner, _, _, last) = block.activation[0], block.branch
    hidden = inner(conv(norm(features(16)).relu())).relu()
    assert_close(block(features(16)), features(16) + last(hidden))


def test_dense_layer_appends_to_its_input():
    layer = drawn(CifarDenseNet(depth=10, growth=6).stage1[0])
    output = layer(features(12))
    assert torch.equal(output[:, :12], features(12))
    assert torch.equal(output[:, 12:], layer.branch(features(12)))


@pytest.mark.parametrize(
    "make",
    [
        lambda dropout: CifarDenseNet(depth=10, dropout=dropout),
        lambda dropout: CifarWideResNet(depth=10, widen=1, dropout=dropout),
    ],
)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_in_training_alone(make, dropout):
    """With the norms in eval mode, training differs from evaluation by dropout alone."""
    net, images = make(dropout).eval(), features(3, 16)
    quiet = net(images)
    assert torch.equal(net(images), quiet)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    assert torch.equal(net(images), quiet) is (dropout == 0)
