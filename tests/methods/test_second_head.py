"""A net that carries a head takes no other: no file could say how it is built."""

import copy

import pytest
import torch

import xcam
from xcam.methods import ABN, LFICAM, LCAMFm, LCAMImg
from xcam.models import Normalized

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
    bare = Normalized(net.model.backbone, net.mean, net.std)
    again = second().attach(bare).eval()
    assert type(again.method) is second
    assert bare(images).shape == again(images).shape == (2, 4)
