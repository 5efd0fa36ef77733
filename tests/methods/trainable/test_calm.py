"""CALM's settings, what it keeps of a classifier, and the lagged posterior."""

import copy
import dataclasses
import pickle

import pytest
import torch
import torchvision
from nets import pictures
from torch import nn
from torch.utils.data import TensorDataset
from trainings import Noisy, assert_same_bits, plain, weights

import xcam
from xcam import recipes
from xcam.methods import CALM
from xcam.models import Normalized
from xcam.models.toy import GapNet, SmallCNN
from xcam.testing import method_checks

IMAGES = pictures(4, size=16)
LABELS = torch.tensor([0, 1, 2, 1])
DATA = TensorDataset(IMAGES, LABELS)
FEW = ("gives_maps", "follows_the_target", "tells_whether_signed", "tells_whether_normalized")


class TestSettings:
    def test_loss_is_the_objective(self):
        assert CALM(loss="ml") == CALM(objective="ml") == CALM(loss="ml", objective="ml")
        assert dataclasses.replace(CALM(loss="ml"), map="saliency").objective == "ml"
        assert pickle.loads(pickle.dumps(CALM(loss="cam"))) == CALM(objective="cam")
        net = xcam.fit(SmallCNN(), DATA, "calm", loss="ml", epochs=1, batch_size=4)
        assert net.method.objective == "ml"
        value, _ = net.method.loss(net, IMAGES, LABELS)
        torch.testing.assert_close(value, nn.functional.nll_loss(net(IMAGES), LABELS))

    def test_recipe_takes_the_loss(self):
        recipe = {
            "model": {"name": "xcam:small_cnn"},
            "data": {"name": "folder"},
            "fit": {"method": "calm", "loss": "ml", "prior": "relu", "epochs": 1},
        }
        recipes.reading.check(recipe)

    @pytest.mark.parametrize(
        ("settings", "error", "sentence"),
        [
            ({"loss": "EM"}, ValueError, "calm: loss must be 'em', 'ml' or 'cam', got 'EM'"),
            ({"loss": 3}, ValueError, "calm: loss must be 'em', 'ml' or 'cam', got 3"),
            ({"loss": "ml", "objective": "em"}, ValueError, "are one setting; leave one"),
            ({"prior": "exp"}, ValueError, "prior must be 'softplus', 'relu' or None, got 'exp'"),
            ({"map": "joint"}, ValueError, "map must be 'vanilla', .*'jointll', .* got 'joint'"),
            ({"lag": 1.0}, ValueError, r"lag must be .*\[0, 1\).*got 1\.0"),
            ({"loss": "ml", "posterior": "lagged"}, ValueError, "the loss 'ml' has no posterior"),
            ({"map": "gtcond_superclass"}, ValueError, "say which classes that is: superclasses="),
            ({"superclasses": 3}, TypeError, "superclasses must map names, or classes, to lists"),
            ({"superclasses": {"a": 3}}, TypeError, "to lists of classes, such as .* got {'a': 3}"),
            ({"superclasses": {"a": ["b"]}}, TypeError, "to lists of classes"),
            ({"superclasses": {1.5: [1]}}, TypeError, "to lists of classes"),
            ({"superclasses": {}}, ValueError, "either names or classes as their keys"),
            ({"superclasses": {"a": [1], 0: [0]}}, ValueError, "either names or classes as their"),
            ({"superclasses": {"a": []}}, ValueError, "'a' must have classes from 0 on"),
            ({"superclasses": {"a": [-1]}}, ValueError, "'a' must have classes from 0 on"),
            ({"superclasses": {"a": [1], "b": [1, 2]}}, ValueError, "class 1 is in 'a' and in 'b'"),
            (
                {"superclasses": {0: [0, 1], 1: [3]}},
                ValueError,
                "class 1 must be among the",
            ),
        ],
    )
    def test_what_does_not_fit_is_refused(self, settings, error, sentence):
        with pytest.raises(error, match=sentence):
            CALM(**settings)

    def test_flags_are_those_of_the_map(self):
        assert CALM().spec == CALM.spec
        assert not CALM(map="saliency").spec.class_specific
        assert CALM(map="vanilla").spec.signed
        assert CALM(loss="cam").spec == CALM(map="vanilla").spec
        assert not CALM(map="vanilla").spec.normalized
        assert CALM.spec.class_specific

    @pytest.mark.parametrize("name", ["saliency", "vanilla", "gtcond_superclass"])
    def test_flags_are_true(self, name):
        method = CALM(map=name, superclasses={"even": [0, 2], "odd": [1, 3]})
        for check in method_checks(method):
            if str(check) in FEW:
                check()


class TestSuperclasses:
    def net(self):
        net = CALM().attach(SmallCNN(num_classes=5))
        net.fitted = True
        return net.eval()

    def test_a_class_in_none_is_its_own(self):
        net, two = self.net(), {"pair": (0, 3)}
        for name in ("jointll_superclass", "jointll_superclass_mean"):
            alone = xcam.explain(net, IMAGES, 1, map=name, superclasses=two).raw
            torch.testing.assert_close(alone, xcam.explain(net, IMAGES, 1).raw)

    def test_names_and_classes_say_the_same(self):
        net = self.net()
        named = {"a": [0, 3], "b": [1, 2, 4]}
        by_class = {k: classes for classes in named.values() for k in classes}
        found = [
            xcam.explain(net, IMAGES, LABELS, map="gtcond_superclass", superclasses=given).raw
            for given in (named, by_class)
        ]
        assert torch.equal(*found)

    def test_class_that_the_net_lacks_is_refused(self):
        with pytest.raises(ValueError, match="superclasses has class 5, and the net has 5 classes"):
            xcam.explain(
                self.net(), IMAGES, 1, map="jointll_superclass", superclasses={"a": [1, 5]}
            )

    def test_they_come_back_from_a_file(self, tmp_path):
        for given in ({"a": [0, 3], "b": [1]}, {0: [0, 3], 3: [0, 3]}):
            net = CALM(map="jointll_superclass", superclasses=given).attach(SmallCNN())
            net.fitted = True
            xcam.save(net, tmp_path / "net.safetensors")
            again = xcam.load(tmp_path / "net.safetensors", SmallCNN())
            assert again.method == net.method
            maps = [xcam.explain(each.eval(), IMAGES, 0).raw for each in (net, again)]
            assert torch.equal(*maps)


class TestMadeWithOther:
    def test_settings_of_the_head_are_refused(self):
        net = CALM(prior="relu", loss="ml").attach(SmallCNN())
        net.fitted = True
        for other in (CALM(prior="softplus"), CALM(loss="em"), CALM(layer="conv1")):
            with pytest.raises(ValueError, match="the model's head of calm was made with"):
                xcam.explain(net, IMAGES, 1, method=other)

    def test_settings_of_maps_and_training_are_free(self):
        net = CALM(prior="relu", loss="ml").attach(SmallCNN())
        net.fitted = True
        other = CALM(map="gtcond", normalizer_gradient="detached", lag=0.5, epsilons="released")
        assert xcam.explain(net, IMAGES, 1, method=other).method.prior == "relu"


class Casting(nn.Module):
    """It asks its last layer for a type before it runs the others."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, images):
        return self.fc(self.conv(images.to(self.fc.weight.dtype)).mean((2, 3)))


class Shared(nn.Module):
    """One ReLU before and behind the last map; a dropout behind it alone."""

    def __init__(self):
        super().__init__()
        self.relu, self.drop = nn.ReLU(), nn.Dropout()
        self.stem, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.hidden, self.fc = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, images):
        found = self.last(self.relu(self.stem(images))).mean((2, 3))
        return self.fc(self.drop(self.relu(self.hidden(found))))


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


class TestTail:
    def test_what_comes_behind_the_layer_is_gone(self):
        with torch.device("meta"):
            vgg, resnet = torchvision.models.vgg16(), torchvision.models.resnet18()
            for net, inside, width in ((vgg, vgg.features, 512), (resnet, None, 512)):
                headed = CALM().attach(net)
                trunk = count(inside) if inside else count(net) - count(net.fc)
                assert count(headed) == trunk + 1001 * (width + 1)
        assert isinstance(CALM().attach(torchvision.models.resnet18()).classifier.fc, nn.Identity)

    def test_what_also_runs_before_stays(self):
        net = CALM().attach(Shared()).classifier
        assert isinstance(net.relu, nn.ReLU)
        assert all(isinstance(part, nn.Identity) for part in (net.hidden, net.fc, net.drop))

    def test_what_is_read_before_stays_and_is_frozen(self):
        model = Casting()
        net = CALM().attach(model)
        assert torch.equal(net.classifier.fc.weight, model.fc.weight)
        assert not net.classifier.fc.weight.requires_grad
        assert model.fc.weight.requires_grad
        assert net(IMAGES).shape == (4, 3)

    def test_given_model_is_left_as_it_was(self):
        model = Normalized(Shared(), (0.5,), (0.2,)).train()
        before = copy.deepcopy(model.state_dict())
        CALM(posterior="lagged").attach(model)
        assert_same_bits(model.state_dict(), before)
        assert isinstance(model.model.fc, nn.Linear)
        assert all(module.training for module in model.modules())


class TestBaseline:
    def test_attention_of_the_cam_baseline_is_not_trained(self):
        net = xcam.fit(SmallCNN(), DATA, "calm", loss="cam", epochs=1, batch_size=4)
        frozen = [name for name, p in net.named_parameters() if not p.requires_grad]
        assert frozen == ["head.attention.weight", "head.attention.bias"]

    def test_every_other_objective_trains_everything(self):
        for settings in ({}, {"loss": "ml"}, {"posterior": "lagged"}):
            net = CALM(**settings).attach(SmallCNN())
            assert all(parameter.requires_grad for parameter in net.parameters())


class TestLagged:
    def attach(self, model=None, **settings):
        return CALM(posterior="lagged", **settings).attach(GapNet() if model is None else model)

    def test_average_follows_the_weights_in_training_alone(self):
        net = self.attach(lag=0.75).train()
        lagged = net.head.lagged.net
        start = lagged.classifier.features[0].weight.clone()
        with torch.no_grad():
            net.classifier.features[0].weight.add_(1)
        net.method.loss(net, IMAGES, LABELS)
        torch.testing.assert_close(lagged.classifier.features[0].weight, start + 0.25)
        net.method.loss(net.eval(), IMAGES, LABELS)
        net(IMAGES)
        torch.testing.assert_close(lagged.classifier.features[0].weight, start + 0.25)
        assert [name for name, _ in lagged.named_parameters()] == []
        assert not any(module.training for module in lagged.modules())

    def test_average_is_updated_once_a_step(self):
        """However many parts a step has: all of them see the same weights."""
        settings = {"epochs": 2, "batch_size": 4, "optimizer": {"name": "SGD", "lr": 0.1}}
        method = CALM(posterior="lagged", lag=0.5)
        one, two = (
            xcam.fit(GapNet(), DATA, method, accumulate=parts, **settings) for parts in (1, 2)
        )
        for name, value in one.state_dict().items():
            torch.testing.assert_close(two.state_dict()[name], value)

    def test_posterior_is_that_of_the_lagged_net(self):
        net = self.attach(lag=0.5)
        before = copy.deepcopy(net).eval()
        before.fitted = True
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(1.5)
        net.fitted = True
        value, _ = net.method.loss(net.eval(), IMAGES, LABELS)
        q = xcam.explain(before, IMAGES, LABELS, map="gtcond").raw
        joint = xcam.explain(net, IMAGES, LABELS, map="jointll").raw
        torch.testing.assert_close(value, -(q * joint.log()).sum((1, 2)).mean())

    def test_no_lag_without_batch_norm_is_the_current_net(self):
        model, data = GapNet(), TensorDataset(IMAGES, LABELS)
        settings = {"epochs": 2, "batch_size": 2, "optimizer": {"name": "SGD", "lr": 0.1}}
        lagged = xcam.fit(model, data, CALM(posterior="lagged", lag=0.0), **settings)
        current = xcam.fit(model, data, CALM(), **settings)
        for name, value in current.state_dict().items():
            torch.testing.assert_close(lagged.state_dict()[name], value)

    def test_a_lag_makes_another_training(self):
        model = GapNet()
        settings = {"epochs": 3, "batch_size": 2, "optimizer": {"name": "SGD", "lr": 0.5}}
        lagged, current = (
            xcam.fit(model, DATA, CALM(posterior=kind, lag=0.9), **settings)
            for kind in ("lagged", "current")
        )
        assert not torch.allclose(lagged.head.conv_last.weight, current.head.conv_last.weight)

    def test_inactive_positions_of_the_current_net_give_a_finite_loss(self):
        net = self.attach(prior="relu")
        with torch.no_grad():
            net.head.attention.weight.fill_(1)
            net.head.lagged.net.head.attention.weight.fill_(1)
            net.head.attention.bias.fill_(-net.classifier.features(IMAGES).sum(1).mean())
        value, _ = net.method.loss(net.eval(), IMAGES, LABELS)
        gradients = torch.autograd.grad(value, list(net.parameters()))
        assert value.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients)

    def test_training_is_resumed_bit_for_bit(self, tmp_path):
        arguments = {"model": GapNet(), "method": CALM(posterior="lagged", lag=0.5)}
        arguments |= {"batch_size": 3, "epochs": 2, "validation": Noisy(6, seed=1)}
        whole = plain(Noisy(6), out=tmp_path / "whole", **arguments)
        plain(Noisy(6), out=tmp_path / "parts", **arguments | {"epochs": 1})
        parts = plain(Noisy(6), out=tmp_path / "parts", **arguments)
        assert_same_bits(weights(parts), weights(whole))
        again = xcam.load(tmp_path / "whole" / "last.safetensors", GapNet())
        assert again.method == whole.method
        assert any(name.startswith("head.lagged.net.classifier.") for name in weights(again))

    def test_copies_are_independent(self):
        net = self.attach(lag=0.5).train()
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            before = weights(net)
            with torch.no_grad():
                other.head.conv_last.weight.add_(1)
            other.method.loss(other, IMAGES, LABELS)
            assert_same_bits(weights(net), before)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1"])
def test_any_net_with_a_feature_map_takes_the_head(name):
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, num_classes=3)
    data = TensorDataset(pictures(4, size=64), LABELS)
    trained = xcam.fit(
        net, data, "calm", epochs=1, batch_size=2, optimizer={"name": "SGD", "lr": 0.1}
    )
    explanation = xcam.explain(trained, data.tensors[0], 1, contrast=0)
    joint = [xcam.explain(trained, data.tensors[0], k).raw for k in range(3)]
    torch.testing.assert_close(sum(joint).sum((1, 2)), torch.ones(4))
    torch.testing.assert_close(explanation.raw, joint[1] - joint[0])
