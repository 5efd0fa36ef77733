import copy

import pytest
import torch
from torch import nn

from xcam.engine import capture, find_module
from xcam.models import Normalized, default_layer, read_map
from xcam.models.toy import GapNet, SmallCNN

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def images(channels=3):
    return torch.rand(2, channels, 16, 12, generator=torch.Generator().manual_seed(0))


def test_normalizes_before_the_model():
    net = Normalized(nn.Identity(), MEAN, STD)
    by_hand = torch.stack([(images()[:, c] - MEAN[c]) / STD[c] for c in range(3)], dim=1)
    assert torch.allclose(net(images()), by_hand, atol=1e-6)


def test_one_mean_serves_every_channel():
    net = Normalized(GapNet(channels=4), (0.5,), (0.25,))
    assert torch.allclose(net(images(4)), net.model((images(4) - 0.5) / 0.25))


def test_state_dict_has_the_weights_of_the_model_alone():
    net = Normalized(SmallCNN(), MEAN, STD)
    assert list(net.state_dict()) == [f"model.{name}" for name in SmallCNN().state_dict()]


def test_moves_and_copies_with_the_model():
    net = copy.deepcopy(Normalized(GapNet(), MEAN, STD)).double()
    assert net(images().double()).dtype == torch.float64
    assert Normalized(GapNet().double(), MEAN, STD).mean.dtype == torch.float64


def test_converted_model_has_the_numbers_that_were_given():
    for net in (
        Normalized(nn.Conv2d(3, 1, 1), MEAN, STD).double(),
        Normalized(nn.Conv2d(3, 1, 1), MEAN, STD).half().float().double(),
        copy.deepcopy(Normalized(nn.Conv2d(3, 1, 1), MEAN, STD)).to(torch.float64),
        Normalized(nn.Conv2d(3, 1, 1), MEAN, STD).to("meta").to_empty(device="cpu").double(),
    ):
        assert net.mean.flatten().tolist() == list(MEAN)
        assert net.std.flatten().tolist() == list(STD)


def test_replaced_mean_stays_when_the_model_is_converted():
    net = Normalized(nn.Conv2d(3, 1, 1), MEAN, STD)
    net.mean = torch.full((3, 1, 1), 0.25)
    assert net.double().mean.flatten().tolist() == [0.25] * 3


def test_training_mode_is_that_of_the_model():
    assert Normalized(nn.Identity().eval(), MEAN, STD).training is False
    assert Normalized(nn.Identity(), MEAN, STD).training is True


def test_layers_are_found_through_it():
    net = Normalized(SmallCNN(), MEAN, STD)
    assert default_layer(net, images()) == "model." + default_layer(net.model, images())
    with capture(net, "model.features") as tap:
        tap(images())
        assert read_map(tap.activation, images(), net).shape == (2, 16, 4, 3)


def test_repr_and_attributes():
    net = Normalized(nn.ReLU(), MEAN, STD, categories=["cat", "dog"], input_size=224)
    assert net.categories == ("cat", "dog")
    assert net.input_size == (224, 224)
    assert net.extra_repr() == (
        "mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), input_size=(224, 224), 2 categories"
    )
    assert Normalized(nn.ReLU(), (0,), (1,)).input_size is None


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5, 0.5), (0.5,)), ((), ()), ((0.5,), (0.0,)), ((0.5,), (-1,))]
)
def test_bad_mean_or_std_is_refused(mean, std):
    with pytest.raises(ValueError, match="one number a channel, std above 0, got mean="):
        Normalized(GapNet(), mean, std)


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got builtin_function"):
        Normalized(torch.relu, MEAN, STD)
    with pytest.raises(ValueError, match="at least one pixel, got 0"):
        Normalized(GapNet(), MEAN, STD, input_size=0)
    with pytest.raises(ValueError, match=r"for 3 channels, got images of shape \(2, 1, 16, 12\)"):
        Normalized(GapNet(channels=1), MEAN, STD)(images(1))


def test_layers_go_by_the_names_of_the_net_inside_too():
    net = Normalized(SmallCNN(), MEAN, STD)
    expected = "model.features.2", net.model.features[2]
    assert find_module(net, "features.2") == find_module(net, "model.features.2") == expected
