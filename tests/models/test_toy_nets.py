from functools import partial

import pytest
import torch

from xcam.models.toy import AttentionNet, GapNet, LinearNet, SmallCNN, TokenNet

ATTENTION = [partial(AttentionNet, attention) for attention in ("cbam", "ran", "warn")]
NETS = [GapNet, LinearNet, SmallCNN, TokenNet, *ATTENTION]


def images(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("net", NETS)
def test_seed_decides_everything_and_the_global_generator_is_left_alone(net):
    before = torch.get_rng_state()
    first, again, other = net(seed=4), net(seed=4), net(seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    batch = images(2, 3, 8, 8)
    assert torch.equal(first(batch), again(batch))
    assert not torch.allclose(first(batch), other(batch))


@pytest.mark.parametrize("net", NETS)
def test_eval_mode_and_shapes(net):
    model = net(num_classes=7)
    assert not any(module.training for module in model.modules())
    assert model(images(2, 3, 8, 8)).shape == (2, 7)


@pytest.mark.parametrize("net", [GapNet, SmallCNN, TokenNet, *ATTENTION])
@pytest.mark.parametrize("size", [(16, 16), (24, 32), (40, 8)])
def test_any_size_and_channels(net, size):
    assert net(channels=1)(images(2, 1, *size)).shape == (2, 5)


def test_gap_net_is_affine_without_relu_and_not_with():
    one, two = images(2, 3, 8, 8).split(1)
    for relu, affine in ((False, True), (True, False)):
        net = GapNet(relu=relu).double()
        middle = net((one.double() + two.double()) / 2)
        ends = (net(one.double()) + net(two.double())) / 2
        assert torch.allclose(middle, ends, atol=1e-12) is affine


def test_linear_net_is_its_matrix():
    net, batch = LinearNet(shape=(1, 4, 6)), images(3, 1, 4, 6)
    weights = net.fc.weight.view(5, 1, 4, 6)
    expected = torch.einsum("kchw,bchw->bk", weights, batch) + net.fc.bias
    assert torch.allclose(net(batch), expected, atol=1e-6)


def test_small_cnn_tells_training_mode_from_eval():
    net, batch = SmallCNN(), images(4, 3, 16, 16)
    quiet = net(batch)
    net.train()
    assert not torch.allclose(net(batch), quiet, atol=1e-2)


def test_token_net_reads_its_class_token_alone():
    net, batch = TokenNet(), images(2, 3, 16, 16)
    tokens = []
    net.blocks.register_forward_hook(lambda _module, _inputs, output: tokens.append(output))
    logits = net(batch)
    assert tokens[0].shape == (2, 17, 24)
    (gradient,) = torch.autograd.grad(logits.sum(), tokens[0])
    assert gradient[:, 0].any()
    assert not gradient[:, 1:].any()
