"""A user's training loop that looks at maps on the way: the training must not notice.

Each case is a loop as people write it, run with and without `xcam.explain` inside, from the same
seed. Compared are weights, buffers of batch norm, gradients, dropout's random state and modes, bit
for bit.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import xcam

STEPS = 4


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, stride=2), nn.ReLU(), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        yield torch.rand(6, 3, 12, 12, generator=generator), torch.arange(6) % 4


def watch(net, images, labels, maps):
    """What the user types in the middle of a loop."""
    explanation = xcam.explain(net, images, labels, method="gradcam")
    maps.append(explanation.maps)


def plain(net, optimizer, look):
    for images, labels in batches():
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), labels)
        look(images, labels)  # between forward and backward: the graph must survive
        loss.backward()
        optimizer.step()


def frozen_backbone(net, optimizer, look):
    net[0].requires_grad_(False)
    net[1].eval()  # its statistics stay, while the rest trains
    plain(net, optimizer, look)
    assert not net[1].training
    assert net[5].training


def mixed_precision(net, optimizer, look):
    scaler = torch.amp.GradScaler("cpu")
    for images, labels in batches():
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(net(images), labels)
            look(images, labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()


def accumulated(net, optimizer, look):
    optimizer.zero_grad()
    for step, (images, labels) in enumerate(batches()):
        F.cross_entropy(net(images), labels).backward()
        look(images, labels)  # with the gradients of earlier batches in .grad
        if step % 2:
            optimizer.step()
            optimizer.zero_grad()
    F.cross_entropy(net(images), labels).backward()  # left in .grad, which is compared


def validating(net, optimizer, look):
    for images, labels in batches():
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
        net.eval()
        with torch.no_grad():
            net(images)
            look(images, labels)
        net.train()


LOOPS = {loop.__name__: loop for loop in
         (plain, frozen_backbone, mixed_precision, accumulated, validating)}  # fmt: skip


def train(loop, explains, wrap=lambda net: net):
    """Return all that a training leaves, and the maps that were looked at."""
    net = make_net()
    wrapped = wrap(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    maps = []

    def look(images, labels):
        if explains:
            watch(wrapped, images, labels, maps)

    torch.manual_seed(2)
    wrapped.train()
    loop(wrapped, optimizer, look)
    left = {f"state {name}": value.clone() for name, value in net.state_dict().items()}
    left |= {f"grad {name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
    left["random"] = torch.get_rng_state()
    modes = {name: module.training for name, module in net.named_modules()}
    return left, modes, maps


def check_same(with_maps, without):
    assert with_maps[1] == without[1]
    assert with_maps[0].keys() == without[0].keys()
    for name, value in without[0].items():
        assert torch.equal(with_maps[0][name], value), name


@pytest.mark.parametrize("name", LOOPS)
def test_training_does_not_notice_explanations(name):
    watched = train(LOOPS[name], explains=True)
    check_same(watched, train(LOOPS[name], explains=False))
    assert len(watched[2]) == STEPS
    assert all(maps.isfinite().all() for maps in watched[2])
    assert any(maps.any() for maps in watched[2])


def test_maps_are_those_of_the_weights_at_that_step():
    """In eval mode: neither dropout nor the batch's own statistics are in them."""
    kept = []

    def look(images, labels):
        now = copy.deepcopy(net).eval()
        kept.append((xcam.explain(net, images, labels).maps, now, images, labels))

    net = make_net().train()
    plain(net, torch.optim.SGD(net.parameters(), lr=0.1), look)
    for maps, now, images, labels in kept:
        assert torch.equal(maps, xcam.explain(now, images, labels).maps)


@pytest.fixture
def process_group(tmp_path):
    from torch import distributed

    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


def test_distributed_training_does_not_notice(process_group):
    watched = train(plain, explains=True, wrap=DistributedDataParallel)
    check_same(watched, train(plain, explains=False, wrap=DistributedDataParallel))
    check_same(watched, train(plain, explains=True))
