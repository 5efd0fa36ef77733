"""Nets that carry an explanation head: saved with their method, explained by it."""

import pytest
import torch
from nets import mixed, pictures, unchanged
from torch import nn
from trained import Layered, Other, Pointwise, Valued, fitted

import xcam
from xcam.errors import FileFormatError, NotFittedError, UnknownNameError
from xcam.models.toy import GapNet
from xcam.registry import installed

IMAGES = pictures(3)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(installed().methods, "pointwise", Pointwise)
    monkeypatch.setitem(installed().methods, "other", Other)
    monkeypatch.setitem(installed().methods, "valued", Valued)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


def named():
    return xcam.models.load("xcam:gap_net")


def same_state(one, two):
    one, two = one.state_dict(), two.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in two)


class TestNetWithHead:
    def test_named_classifier_is_rebuilt_with_its_head(self, path):
        net = fitted(Pointwise(width=6, gain=2.5), named())
        xcam.save(net, path)
        got = xcam.load(path)
        assert same_state(got, net)
        assert repr(got.method) == repr(net.method)
        assert got.fitted is True
        expected = xcam.explain(net, IMAGES, 1, method=None)
        assert torch.equal(xcam.explain(got, IMAGES, 1, method=None).maps, expected.maps)
        assert torch.equal(got(IMAGES), net(IMAGES))

    @pytest.mark.parametrize("given", ["backbone", "with its head"])
    def test_own_classifier_is_passed_as_model(self, path, given):
        net = fitted(Pointwise(width=6), GapNet(seed=4))
        xcam.save(net, path)
        with pytest.raises(ValueError, match=r"pass one like it: xcam\.load\(path, model=…\)"):
            xcam.load(path)
        model = GapNet() if given == "backbone" else fitted(Pointwise(width=6), GapNet(), seed=9)
        with unchanged(mixed(model)):
            got = xcam.load(path, nn.DataParallel(model))
        assert same_state(got, net)
        assert repr(got.method) == "Pointwise(width=6, gain=1.0, offset=None)"

    def test_head_that_needs_values_is_rebuilt(self, path):
        net = fitted(Valued(), named())
        before = torch.get_rng_state()
        xcam.save(net, path)
        assert torch.equal(torch.get_rng_state(), before)
        assert same_state(xcam.load(path), net)

    def test_tensor_parameters_of_the_method_are_saved(self, path):
        net = fitted(Pointwise(offset=torch.rand(2, 3).T), named())
        xcam.save(net, path)
        got = xcam.load(path)
        assert torch.equal(got.method.offset, net.method.offset)
        assert same_state(got, net)

    def test_untrained_head_stays_untrained(self, path):
        net = Pointwise().attach(named())
        xcam.save(net, path)
        with pytest.raises(NotFittedError, match="is not trained"):
            xcam.explain(xcam.load(path), IMAGES, method=None)

    def test_replaced_head_needs_the_net_as_model(self, path):
        net = fitted(Pointwise(), named())
        net.model.head = nn.Conv2d(3, 11, 1)
        xcam.save(net, path)
        with pytest.raises(ValueError, match="pass one like it"):
            xcam.load(path)
        with pytest.raises(
            FileFormatError, match=r"another shape in 'model\.head\.bias', 'model\.head\.weight'"
        ):
            xcam.load(path, named())
        assert same_state(xcam.load(path, net), net)

    def test_method_that_is_not_installed_is_refused(self, path):
        xcam.save(fitted(Pointwise(), named()), path)
        del installed().methods["pointwise"]
        with pytest.raises(UnknownNameError, match="'pointwise', which is not installed here: no"):
            xcam.load(path)

    def test_method_with_other_parameters_is_refused(self, path, monkeypatch):
        xcam.save(fitted(Pointwise(), named()), path)
        monkeypatch.setitem(installed().methods, "pointwise", xcam.get_method("gradcam"))
        with pytest.raises(
            FileFormatError, match=r"in another version that rejects the parameters: .*'width'"
        ):
            xcam.load(path)

    def test_method_that_is_not_trainable_is_refused(self, path, monkeypatch):
        xcam.save(fitted(Pointwise(), named()), path)
        monkeypatch.setitem(installed().methods, "pointwise", lambda **params: object())
        with pytest.raises(FileFormatError, match="which is not a trainable method here"):
            xcam.load(path)

    def test_parameter_that_no_file_can_hold_is_refused(self, path):
        with pytest.raises(TypeError, match=r"method\.layer is a ReLU, which no file can hold"):
            xcam.save(fitted(Layered(layer=nn.ReLU()), named()), path)
        assert list(path.parent.iterdir()) == []

    @pytest.mark.parametrize("method", [None, Other()])
    def test_model_with_another_head_is_refused(self, path, method):
        xcam.save(fitted(method, named()) if method else named(), path)
        with pytest.raises(ValueError, match=r"carries a head of 'pointwise', .* classifier alone"):
            xcam.load(path, fitted(Pointwise(), named()))


class TestExplainingNetWithHead:
    def test_default_method_is_the_nets_own(self):
        net = fitted(Pointwise(gain=3.0), named())
        own = xcam.explain(net, IMAGES, 1, method=None)
        assert repr(own.method) == repr(net.method)
        assert torch.equal(own.maps, 3 * net.head(IMAGES).amax(1))
        wrapped = xcam.explain(nn.DataParallel(net), IMAGES, 1, method=None)
        assert torch.equal(wrapped.maps, own.maps)

    def test_name_of_its_method_keeps_its_parameters(self):
        net = fitted(Pointwise(width=6, gain=3.0), named())
        assert repr(xcam.explain(net, IMAGES, 1, "pointwise").method) == repr(net.method)
        changed = xcam.explain(net, IMAGES, 1, "pointwise", gain=1.0)
        assert (changed.method.width, changed.method.gain) == (6, 1.0)
        assert torch.equal(changed.maps, net.head(IMAGES).amax(1))

    def test_other_methods_can_be_asked_for(self):
        net = fitted(Pointwise(), named())
        got = xcam.explain(net, IMAGES, 1, "gradcam", layer="model.classifier.features")
        assert got.method.spec.name == "gradcam"

    def test_layer_is_named_as_in_the_classifier(self):
        net = fitted(Layered(layer="model.features"), named())
        assert xcam.explain(net, IMAGES, 1, method=None).method.layer == "model.features"

    def test_method_with_a_layer_is_the_default(self):
        net = fitted(Layered(layer="model.features"), named())
        assert xcam.explain(net, IMAGES, 1).method == net.method

    def test_plain_classifier_is_explained_by_gradcam(self):
        assert xcam.explain(named(), IMAGES, 1).method.spec.name == "gradcam"

    @pytest.mark.parametrize(
        ("net", "reason"),
        [
            (
                named,
                r"needs a model with its head, and this one has no head; .*method='other'",
            ),
            (lambda: fitted(Pointwise(), named()), "this one has the head of pointwise"),
            (lambda: Other().attach(named()), "the head of other on this model is not trained"),
        ],
        ids=["plain", "other head", "untrained"],
    )
    def test_missing_head_is_refused(self, net, reason):
        with pytest.raises(NotFittedError, match=reason):
            xcam.explain(net(), IMAGES, method="other")

    def test_untrained_head_is_refused(self):
        net = fitted(Pointwise(), named())
        net.fitted = False
        for method in (None, "pointwise", Pointwise()):
            with pytest.raises(NotFittedError, match="the head of pointwise on this model is not"):
                xcam.explain(net, IMAGES, method=method)

    def test_evaluate_refuses_a_missing_head(self):
        data = [(IMAGES, torch.tensor([0, 1, 2]))]
        with pytest.raises(NotFittedError, match="needs a model with its head"):
            xcam.evaluate(named(), data, ["pointwise"], ["insertion"], controls=False)


TRAINABLE = [
    name for name in xcam.list_methods() if issubclass(xcam.get_method(name), xcam.TrainableMethod)
]


@pytest.mark.parametrize("name", TRAINABLE)
def test_every_trainable_method_survives_a_round_trip(path, name):
    backbone = xcam.models.load("xcam:cifar_resnet", depth=20, num_classes=3)
    images = pictures(2, size=32)
    net = xcam.get_method(name)().attach(backbone).eval()
    net.fitted = True
    xcam.save(net, path)
    got = xcam.load(path)
    assert same_state(got, net)
    assert repr(got.method) == repr(net.method)
    assert torch.equal(got(images), net(images))
    expected = xcam.explain(net, images, 1, method=None).maps
    assert torch.equal(xcam.explain(got, images, 1, method=None).maps, expected)
