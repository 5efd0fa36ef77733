"""The layers of a net in the order of a pass, and copies with random weights in some of them."""

import pytest
import torch
from by_hand import seeded
from nets import Staged, unchanged
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.errors import ModelOutputError
from xcam.metrics.randomization.layers import RandomizedModel, list_layers
from xcam.models.toy import GapNet, TokenNet

IMAGES = seeded(2, 3, 8, 8)


class Backwards(Staged):
    """Its first layer is defined last; a bias is its own; `spare` is never called."""

    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(2, 2)
        self.stem = self._modules.pop("stem")
        self.shift = nn.Parameter(torch.zeros(4, 1, 1))

    def features(self, images):
        return super().features(images) + self.shift


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 4, 4, 4)
        self.mix = nn.MultiheadAttention(4, 2, batch_first=True)
        self.fc = nn.Linear(4, 3)

    def forward(self, images):
        tokens = self.embed(images).flatten(2).mT
        return self.fc(self.mix(tokens, tokens, tokens)[0].mean(1))


def randomize(net, names, seed=0, method="saliency"):
    made = RandomizedModel(net, IMAGES, xcam.get_method(method)(), seed)
    return made, made.prepare(names).model


def list_changed(net, other):
    pairs = zip(net.state_dict().items(), other.state_dict().values(), strict=True)
    return [name for (name, first), second in pairs if not torch.equal(first, second)]


def test_layers_are_in_the_order_of_a_pass():
    assert list_layers(GapNet(), IMAGES) == ("features.0", "features.2", "fc")
    assert list_layers(Backwards(), IMAGES) == (
        "",
        "stem",
        "layer",
        "tail.1",
        "tail.2",
        "fc",
        "spare",
    )
    # The container's own weights come first, those that another module uses behind it.
    assert list_layers(TokenNet(), IMAGES)[0] == ""
    assert list_layers(Attending(), IMAGES) == ("embed", "mix", "mix.out_proj", "fc")


def test_tied_weights_are_one_layer():
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 192, bias=False), nn.Linear(192, 192, bias=False)
    )
    net[2].weight = net[1].weight
    assert list_layers(net, IMAGES) == ("1",)


@pytest.mark.parametrize("make", [GapNet, Backwards, TokenNet, Attending])
def test_weights_of_named_layers_alone_are_made_anew(make):
    net = make().eval()
    layers = list_layers(net, IMAGES)
    with unchanged(net, IMAGES):
        made, copied = randomize(net, layers[-2:])
        owned = {f"{name}.{k}".lstrip(".") for name in layers[-2:]
                 for k, _ in net.get_submodule(name).named_parameters(recurse=False)}  # fmt: skip
        changed = {*list_changed(net, copied)}
        assert changed
        assert changed <= owned
        # Back again, and others: the copy is the same one.
        assert made.prepare(layers[:1]).model is copied
        own = {k for k, _ in net.get_submodule(layers[0]).named_parameters(recurse=False)}
        assert {name.rpartition(".")[2] for name in list_changed(net, copied)} <= own
        assert list_changed(net, made.prepare(()).model) == []


def test_weights_are_those_of_reset_parameters():
    layer = randomize(GapNet(), ("fc",))[1].fc
    bound = layer.in_features**-0.5  # kaiming_uniform with a = √5
    assert layer.weight.abs().max() <= bound
    assert layer.weight.std() == pytest.approx(bound / 3**0.5, rel=0.2)
    norm = randomize(Staged(), ("tail.2",))[1].tail[2]
    assert norm.weight.tolist() == norm.running_var.tolist() == [1] * 4


def test_other_weights_are_permuted():
    net = TokenNet().eval()
    with torch.no_grad():
        net.class_token.copy_(torch.arange(net.class_token.numel()).view_as(net.class_token))
    found = randomize(net, ("",))[1].class_token.flatten()
    assert sorted(found.tolist()) == sorted(net.class_token.flatten().tolist())
    assert not torch.equal(found, net.class_token.flatten())


def test_layers_are_drawn_by_seed_and_place():
    net, layers = GapNet(), list_layers(GapNet(), IMAGES)
    whole, alone = randomize(net, layers)[1], randomize(net, layers[1:2])[1]
    torch.manual_seed(1)
    again, other = randomize(net, layers)[1], randomize(net, layers, seed=1)[1]
    assert_close(whole.features[2].weight, alone.features[2].weight, rtol=0, atol=0)
    assert_close(whole.state_dict(), again.state_dict(), rtol=0, atol=0)
    assert len(list_changed(whole, other)) == len(whole.state_dict())
    same = nn.Sequential(nn.Flatten(), *(nn.Linear(192, 192) for _ in range(2)))
    drawn = randomize(same, ("1", "2"))[1]
    assert not torch.equal(drawn[1].weight, drawn[2].weight)


def test_refuses_a_model_without_weights():
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"^the model \(Sequential\) has no weights that could be"):
        list_layers(net, IMAGES)


def test_refuses_a_model_that_cannot_be_copied():
    net = GapNet()
    net.kept = net.fc.weight * 2  # no leaf, as the old weight_norm has it
    with pytest.raises(ModelOutputError, match=r"^the weights of a copy .* fails on GapNet .Only"):
        randomize(net, ("fc",))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weight_norm_of_old_is_refused_until_it_is_removed():
    net = nn.Sequential(GapNet(), nn.utils.weight_norm(nn.Linear(5, 5)))
    with pytest.raises(ModelOutputError, match=r", or the weights of .*, by remove_weight_norm$"):
        randomize(net, ("1",))
    nn.utils.remove_weight_norm(net[1])
    assert list_changed(net, randomize(net, ("1",))[1]) == ["1.bias", "1.weight"]


def test_layer_whose_reset_takes_arguments_is_permuted():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.arange(8.0).view(8, 1, 1))

        def reset_parameters(self, std):
            self.weight.data.normal_(std=std)

        def forward(self, images):
            return images * self.weight.mean()

    net = nn.Sequential(Scale(), GapNet())
    made = randomize(net, ("0",))[1][0].weight
    assert not made.equal(net[0].weight)
    assert made.flatten().sort().values.equal(net[0].weight.flatten())
