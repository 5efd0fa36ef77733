"""A net that carries a head takes no other: no file could say how it is built."""

import copy

import pytest
import torch

import xcam
from xcam.methods import ABN, CALM, LFICAM, CAStream, LCAMFm, LCAMImg
from xcam.models import Normalized

METHODS = [ABN, CAStream, LFICAM, LCAMFm, LCAMImg]


def classifier():
    return xcam.models.load("xcam:cifar_resnet", depth=8, num_classes=4)


@pytest.mark.parametrize("second", [*METHODS, CALM])
@pytest.mark.parametrize("first", METHODS)
def test_second_head_is_refused(first, second):
    net = first().attach(classifier())
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(
        ValueError, match=rf"carries the head of {first.__name__}\(.*net\.classifier$"
    ):
        second().attach(torch.nn.DataParallel(net))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("second", [*METHODS, CALM])
@pytest.mark.parametrize("first", METHODS)
def test_classifier_of_a_net_takes_another_head(first, second):
    net = first().attach(classifier()).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    again = second().attach(torch.nn.DataParallel(net.classifier)).eval()
    assert type(again.method) is second
    assert net.classifier(images).shape == again(images).shape == (2, 4)


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("kind", METHODS)
def test_classifier_is_the_given_one_and_shared(kind, normalized, tmp_path):
    model = classifier()
    model = model if normalized else model.model
    net = kind().attach(model)
    net.fitted = True
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = xcam.explain(net, images).maps
    shared = net.classifier
    assert [id(p) for p in shared.parameters()] == [
        id(p) for n, p in net.named_parameters() if "classifier." in n
    ]
    assert isinstance(shared, Normalized) == normalized
    bare = copy.deepcopy(shared).requires_grad_()
    hooks = [m._forward_hooks or m._forward_pre_hooks for m in bare.modules()]
    assert not any(hooks)
    assert all(parameter.requires_grad for parameter in bare.parameters())
    assert not hasattr(bare, "method")
    assert {n: v.tolist() for n, v in bare.state_dict().items()} == {
        n: v.tolist() for n, v in model.state_dict().items()
    }
    assert torch.equal(bare.eval()(images), model.eval()(images))
    bare.conv = torch.nn.Conv2d(1, 1, 1)
    bare.register_forward_hook(lambda *_: None)
    with torch.no_grad():
        next(bare.parameters()).zero_()
    assert torch.equal(xcam.explain(net, images).maps, before)
    xcam.save(net.classifier, tmp_path / "net.safetensors")
    if normalized:
        loaded = xcam.load(tmp_path / "net.safetensors")  # which also knows how it is built
        assert torch.equal(loaded(images), model(images))


def test_net_without_a_head_has_no_classifier():
    assert not any(hasattr(classifier(), n) for n in ("classifier", "method", "fitted", "head"))


def test_method_that_replaces_the_classifier_leaves_none():
    net = CALM().attach(classifier())
    with pytest.raises(ValueError, match="calm replaces the classifier, and there is none without"):
        _ = net.classifier
    with pytest.raises(ValueError, match=r"give the classifier that it was made from$"):
        LFICAM().attach(net)


def test_second_head_trains_all_parameters_of_the_first_net():
    generator = torch.Generator().manual_seed(0)
    data = [(torch.rand(3, 32, 32, generator=generator), label) for label in (0, 1, 2, 3)]
    bare = xcam.fit(classifier(), data, "lcam_fm", epochs=1).classifier
    net = xcam.fit(copy.deepcopy(bare).requires_grad_(), data, "lficam", epochs=1)
    trained = dict(net.model.classifier.named_parameters())
    assert not any(torch.equal(trained[n], p) for n, p in bare.model.named_parameters())
