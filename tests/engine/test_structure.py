"""A search is made once for a net, and again after every change that a pass may depend on."""

import copy
import gc
import types
import weakref

import pytest
import torch
from torch import nn

from xcam.engine import structure
from xcam.engine.structure import forget, remember
from xcam.models.toy import SmallCNN


class Searched(nn.Module):
    """A net with attributes of many kinds, whose modules all claim to be equal."""

    def __init__(self, nested=True):
        super().__init__()
        self.body = SmallCNN()
        self.scale, self.sizes, self.options = 1.5, [3, 4], {"pool": True}
        if nested:  # is compared by values, what is not by addresses first
            self.options["nested"] = [1]
        self.act, self.config = torch.relu, types.SimpleNamespace(pool=True, sizes=(1, 3))

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0

    def forward(self, images):
        self.last = self.body(self.act(images)) * self.scale
        return self.last


def count_searches(net, key="layer"):
    """Return how often the search is made for the net, as it is now."""
    calls = []
    remember(net, key, lambda: calls.append(1))
    return len(calls)


@pytest.fixture(params=[True, False], ids=["nested", "flat"])
def net(request):
    net = Searched(request.param)
    assert count_searches(net) == 1
    assert count_searches(net) == 0
    return net


def train_a_step(net):
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.rand(2, 3, 16, 16)).sum().backward()
    optimizer.step()


@pytest.mark.parametrize(
    "use",
    [
        nn.Module.train,
        nn.Module.eval,
        lambda net: net.requires_grad_(False),
        lambda net: net.load_state_dict(Searched().state_dict()),
        lambda net: net.load_state_dict(Searched().state_dict(), assign=True),
        lambda net: net(torch.rand(2, 3, 16, 16)),  # keeps its last output
        train_a_step,
        lambda net: setattr(net, "scale", 1.0 + 0.5),
    ],
)
def test_use_of_a_net_is_no_change(net, use):
    use(net)
    assert count_searches(net) == (1 if hasattr(net, "last") else 0)  # the attribute is new
    use(net)
    assert count_searches(net) == 0


def patch_forward(net):
    net.body.forward = types.MethodType(lambda self, images: images.mean((2, 3)), net.body)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net.body, "classifier", nn.Linear(64, 5)),
        lambda net: setattr(net.body.features[1], "eps", 0.1),
        lambda net: setattr(net.body.features[0], "stride", (2, 2)),
        lambda net: setattr(net.body.features[0], "weight", nn.Parameter(torch.zeros(4, 3, 3, 3))),
        lambda net: setattr(net, "scale", 2),
        lambda net: setattr(net, "act", torch.sigmoid),
        lambda net: setattr(net, "new", None),
        lambda net: delattr(net, "scale"),
        lambda net: net.sizes.append(5),
        lambda net: net.sizes.__setitem__(0, 5),
        lambda net: net.options.update(pool=False),
        lambda net: net.options.setdefault("nested", []).append(2),
        lambda net: net.body.add_module("extra", nn.ReLU()),
        lambda net: net.body.features.pop(-1),
        lambda net: net.body.features[0].register_forward_hook(lambda *_: None),
        lambda net: net.register_forward_pre_hook(lambda *_: None),
        lambda net: net.register_buffer("mask", torch.ones(3)),
        lambda net: setattr(net.body.features[0].weight, "data", torch.zeros(4, 3, 3, 3)),
        lambda net: setattr(net.body, "__class__", type("Other", (SmallCNN,), {})),
        lambda net: setattr(net.config, "pool", False),
        lambda net: setattr(net.config, "sizes", (1, 2)),
        lambda net: setattr(net.config, "new", 1),
        patch_forward,
    ],
)
def test_every_change_is_seen_once(net, change):
    change(net)
    assert count_searches(net) == 1
    assert count_searches(net) == 0


def test_method_patched_on_the_class_is_seen(net, monkeypatch):
    monkeypatch.setattr(SmallCNN, "forward", lambda self, images: images)
    assert count_searches(net) == 1


def test_tensor_of_another_shape_is_seen(net):
    net.grid = torch.zeros(2, 2)
    assert count_searches(net) == 1
    net.grid.data = torch.zeros(3)
    assert count_searches(net) == 1
    assert count_searches(net) == 0


def test_forgotten_net_is_searched_again(net):
    forget(net)
    assert count_searches(net) == 1


def test_copy_is_another_net(net):
    assert count_searches(copy.deepcopy(net)) == 1
    assert count_searches(net) == 0


def test_keys_are_remembered_apart(net):
    assert remember(net, "size", lambda: 7) == 7
    assert remember(net, "size", lambda: 8) == 7
    assert count_searches(net, "shape") == 1


def test_failed_search_is_made_again(net):
    with pytest.raises(ValueError, match="no layer"):
        remember(net, "other", lambda: (_ for _ in ()).throw(ValueError("no layer")))
    assert count_searches(net, "other") == 1


def test_net_is_not_kept_alive():
    net = Searched()
    net.itself = [lambda net=net: net]
    assert count_searches(net) == 1
    number, alive = id(net), weakref.ref(net)
    assert number in structure._known
    del net
    gc.collect()
    assert alive() is None
    assert number not in structure._known


def test_replaced_modules_at_the_same_address_are_seen():
    """A module that is gone leaves its address to the next one."""
    net = nn.Sequential(nn.ReLU())
    for _ in range(20):
        assert count_searches(net) == 1
        del net[0]
        net.append(nn.ReLU())


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_scripted_part_is_no_change():
    net = nn.Sequential(torch.jit.script(nn.ReLU()), nn.ReLU())
    assert count_searches(net) == 1
    assert count_searches(net) == 0
    net[0] = nn.ReLU()
    assert count_searches(net) == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_scripted_part_with_children_is_no_change():
    """Children of a scripted module are not found by number."""
    net = nn.Sequential(torch.jit.script(nn.Sequential(nn.ReLU(), nn.ReLU())), nn.ReLU())
    assert count_searches(net) == 1
    assert count_searches(net) == 0
    net[0] = torch.jit.script(nn.Sequential(nn.ReLU(), nn.ReLU()))
    assert count_searches(net) == 1
