"""A net that carries a head takes no other: no file could say how it is built."""

import copy

import pytest
import torch

import xcam
from xcam.methods import ABN, LFICAM, LCAMFm, LCAMImg

METHODS = [ABN, LFICAM, LCAMFm, LCAMImg]


def classifier():
    return xcam.models.load("xcam:cifar_resnet", depth=8, num_classes=4)


@pytest.mark.parametrize("second", METHODS)
@pytest.mark.parametrize("first", METHODS)
def test_is_refused(first, second):
    net = first().attach(classifier())
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=rf"carries the head of {first.__name__}\(.*without it: "):
        second().attach(torch.nn.DataParallel(net))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("second", METHODS)
@pytest.mark.parametrize("first", METHODS)
def test_what_the_refusal_advises(first, second):
    net = first().attach(classifier()).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    bare = xcam.without_head(torch.nn.DataParallel(net))
    again = second().attach(bare).eval()
    assert type(again.method) is second
    assert bare(images).shape == again(images).shape == (2, 4)


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("kind", METHODS)
def test_without_head_it_is_the_classifier(kind, normalized, tmp_path):
    model = classifier()
    model = model if normalized else model.model
    model.requires_grad_(False)
    net = kind().attach(model)
    net.fitted = True
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = xcam.explain(net, images).maps
    bare = xcam.without_head(net)
    hooks = [m._forward_hooks or m._forward_pre_hooks for m in bare.modules()]
    assert not any(hooks)
    assert all(parameter.requires_grad for parameter in bare.parameters())
    assert bare.training == net.training
    assert not hasattr(bare, "method")
    assert {n: v.tolist() for n, v in bare.state_dict().items()} == {
        n: v.tolist() for n, v in model.state_dict().items()
    }
    assert torch.equal(bare.eval()(images), model.eval()(images))
    assert torch.equal(xcam.explain(net, images).maps, before)
    xcam.save(bare, tmp_path / "net.safetensors")
    if normalized:
        loaded = xcam.load(tmp_path / "net.safetensors")  # which also knows how it is built
        assert torch.equal(loaded(images), model(images))


def test_what_is_no_net_with_a_head():
    with pytest.raises(ValueError, match="carries no head of a method"):
        xcam.without_head(classifier())
    net = ABN().attach(classifier())
    net.model.inner = net.model.backbone
    del net.model.backbone
    with pytest.raises(ValueError, match="the head of abn has no classifier as `backbone`"):
        xcam.without_head(net)


def test_the_next_head_trains_all_of_it():
    generator = torch.Generator().manual_seed(0)
    data = [(torch.rand(3, 32, 32, generator=generator), label) for label in (0, 1, 2, 3)]
    bare = xcam.without_head(xcam.fit(classifier(), data, "lcam_fm", epochs=1))
    net = xcam.fit(bare, data, "lficam", epochs=1)
    trained = dict(net.model.backbone.named_parameters())
    assert not any(torch.equal(trained[n], p) for n, p in bare.model.named_parameters())
