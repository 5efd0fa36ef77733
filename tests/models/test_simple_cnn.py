import pytest
import torch
import torch.nn.functional as F
from torch import nn

import xcam
from xcam.models import default_layer, load
from xcam.models.whitebox.simple_cnn import SimpleCNN

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


def net_for(shape, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SimpleCNN(in_channels=shape[0], input_size=shape[1:], **options).eval()


def images(shape, number=2):
    return torch.rand(number, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("shape", "features", "classifier"),
    [(MNIST, 93_120, 1_190_922), (CIFAR, 93_696, 2_108_426)],
)
def test_parameters(shape, features, classifier):
    net = net_for(shape)
    counts = [sum(p.numel() for p in part.parameters()) for part in (net.features, net.classifier)]
    assert counts == [features, classifier]
    assert sum(p.numel() for p in net.parameters()) == {MNIST: 1_284_042, CIFAR: 2_202_122}[shape]


def test_features_are_blocks_of_convolution_norm_relu_and_pooling():
    block = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d]
    assert [type(layer) for layer in net_for(CIFAR).features] == 3 * block


@pytest.mark.parametrize(
    ("shape", "cells"), [(MNIST, (3, 3)), (CIFAR, (4, 4)), ((3, 17, 40), (2, 5))]
)
def test_shapes(shape, cells):
    net = net_for(shape, num_classes=7)
    assert net.features(images(shape)).shape == (2, 128, *cells)
    assert net(images(shape)).shape == (2, 7)


def test_logits_agree_with_the_same_steps_on_its_weights():
    net, batch = net_for(MNIST), images(MNIST)
    state = net.state_dict()
    for norm in (1, 5, 9):  # statistics that are not the trivial ones
        state[f"features.{norm}.running_mean"].fill_(0.1)
        state[f"features.{norm}.running_var"].fill_(0.5)
    features = batch
    for conv in (0, 4, 8):
        weight, bias = state[f"features.{conv}.weight"], state[f"features.{conv}.bias"]
        features = F.conv2d(features, weight, bias, padding=1)
        features = (features - 0.1) / (0.5 + 1e-5) ** 0.5
        features = F.max_pool2d(features.clamp(min=0), 2)
    hidden = features.flatten(1) @ state["classifier.1.weight"].T + state["classifier.1.bias"]
    logits = hidden.clamp(min=0) @ state["classifier.3.weight"].T + state["classifier.3.bias"]
    torch.testing.assert_close(net(batch), logits)


def test_other_images_are_refused():
    with pytest.raises(ValueError, match=r"\(B, 1, 28, 28\), got \(2, 3, 32, 32\); resize them"):
        net_for(MNIST)(images(CIFAR))


@pytest.mark.parametrize("size", [7, (32, 7)])
def test_sizes_of_which_pooling_leaves_nothing(size):
    with pytest.raises(ValueError, match="of at least 8, got"):
        SimpleCNN(input_size=size)


@pytest.mark.parametrize("shape", [MNIST, CIFAR])
def test_default_layer(shape):
    assert default_layer(net_for(shape), images(shape)) == "features.10"


@pytest.mark.parametrize("method", ["gradcam", "guided_backprop", "deconvnet", "scorecam"])
def test_maps_are_of_the_class(method):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = load("xcam:simple_cnn", in_channels=1, input_size=28)
    first, second = (xcam.explain(net, images(MNIST), k, method=method).maps for k in (0, 1))
    assert first.shape == (2, 28, 28)
    assert first.isfinite().all()
    assert not torch.allclose(first, second)


def test_last_pooling_layer_can_be_explained():
    net, batch = net_for(CIFAR), images(CIFAR)
    explanation = xcam.explain(net, batch, 0, method="conv_output", layer="features.11")
    torch.testing.assert_close(explanation.raw, net.features(batch).detach().mean(1))


def test_gradients_reach_every_parameter():
    net, batch = net_for(CIFAR), images(CIFAR, 4)
    loss = F.cross_entropy(net(batch), torch.tensor([0, 1, 2, 3]))
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    assert all(gradient.any() for gradient in gradients)


def test_weights_depend_on_torchs_seed_alone():
    first, again = net_for(MNIST), net_for(MNIST)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        other = SimpleCNN(in_channels=1, input_size=28).eval()
    assert not torch.equal(other(images(MNIST)), first(images(MNIST)))
    other.load_state_dict(first.state_dict())
    assert torch.equal(other(images(MNIST)), first(images(MNIST)))
