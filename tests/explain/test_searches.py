"""What a call does once, and what it does not repeat: searches, passes, guards."""

import copy

import pytest
import torch
from torch import nn

import xcam
from xcam.engine import layers, restore
from xcam.models.toy import SmallCNN, TokenNet

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Branches(nn.Module):
    """Runs one of two convolutions, as a method of its own says."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 5, 3), nn.Conv2d(3, 5, 5)

    def choose(self, images):
        return self.first(images)

    def forward(self, images):
        return self.choose(images).mean((2, 3))


@pytest.fixture
def searches(monkeypatch):
    """The names of the layers that were found by a search so far."""
    found = []
    search = layers._search_net

    def counted(*args):
        found.append(search(*args).name)
        return search(*args)

    monkeypatch.setattr(layers, "_search_net", counted)
    return found


def count_passes(net, run):
    """Return how many images go through the net's layers while something runs."""
    passes = []
    hook = next(net.children()).register_forward_pre_hook(lambda _, args: passes.append(args[0]))
    try:
        run(), passes.clear(), run()
    finally:
        hook.remove()
    return sum(len(images) for images in passes if not images.is_meta)


@pytest.mark.parametrize("make", [SmallCNN, TokenNet])
@pytest.mark.parametrize("method", ["gradcam", "eigencam"])
def test_later_call_with_the_default_layer_is_one_pass(make, method):
    net = make()
    assert count_passes(net, lambda: xcam.explain(net, IMAGES, 1, method)) == len(IMAGES)


def test_layer_that_fails_is_searched_again(searches, monkeypatch):
    net = Branches()
    assert xcam.explain(net, IMAGES, 1).method.layer == "first"
    monkeypatch.setattr(Branches, "choose", lambda self, images: self.second(images))
    data = [(IMAGES, torch.tensor([1, 2]))]
    found = xcam.evaluate(net, data, "gradcam", "average_drop", controls=False)
    assert found.table()["n"].tolist() == [2]
    assert xcam.explain(net, IMAGES, 1).method.layer == "second"
    assert len(searches) == 2


def test_layer_is_searched_once_for_a_net_and_size(searches):
    net = SmallCNN()
    first = xcam.explain(net, IMAGES, 1)
    again = xcam.explain(net, IMAGES, 1)
    assert len(searches) == 1
    assert torch.equal(first.raw, again.raw)
    assert first.method == again.method
    xcam.explain(net, torch.cat([IMAGES, IMAGES]), 1, "layercam")
    xcam.evaluate(net, [(IMAGES, torch.tensor([1, 2]))], "gradcam", "average_drop")
    assert len(searches) == 1
    xcam.explain(net, IMAGES[..., :24], 1)
    assert len(searches) == 2
    xcam.explain(copy.deepcopy(net), IMAGES, 1)
    assert len(searches) == 3


def test_use_of_a_net_makes_no_search(searches):
    net = SmallCNN()
    xcam.explain(net, IMAGES, 1)
    net.train().requires_grad_(False).load_state_dict(SmallCNN(seed=1).state_dict())
    changed = xcam.explain(net, IMAGES, 1)
    assert len(searches) == 1
    assert torch.equal(changed.raw, xcam.explain(SmallCNN(seed=1), IMAGES, 1).raw)


def test_changed_net_is_searched_again_and_explained_as_it_is(searches):
    net = SmallCNN()
    xcam.explain(net, IMAGES, 1)
    torch.manual_seed(0)
    net.features.append(nn.Conv2d(16, 16, 3))
    net.late = nn.Identity()
    forward = net.forward
    net.forward = lambda images: net.late(forward(images))
    xcam.explain(net, IMAGES, 1)
    assert len(searches) == 2
    net.features[-1] = nn.Conv2d(16, 16, 1)
    xcam.explain(net, IMAGES, 1)
    assert len(searches) == 3
    net.pool.register_forward_hook(lambda *_: None)
    xcam.explain(net, IMAGES, 1)
    assert len(searches) == 4


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "rise", "integrated_gradients"])
def test_model_is_guarded_once_a_call(method, monkeypatch):
    guards = []
    freeze = restore._frozen
    monkeypatch.setattr(restore, "_frozen", lambda modules: guards.append(1) or freeze(modules))
    xcam.explain(SmallCNN(), IMAGES, 1, method)
    assert len(guards) == 1
