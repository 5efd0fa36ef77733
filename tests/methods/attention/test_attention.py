"""The maps of a net's own attention: what its modules give, by stage."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.errors import LayerError
from xcam.models import Normalized, load
from xcam.models.toy import GapNet
from xcam.models.whitebox.cbam import CBAM

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
NETS = {  # and the sizes of its stages' maps
    "cbam": ("xcam:simple_cnn", {"attention": "cbam"}, (32, 16, 8)),
    "ran": ("xcam:ran", {"width": 4}, (16, 8, 4)),
    "warn": ("xcam:warn", {"depth": 10, "widen": 1}, (32, 16, 8)),
}


@pytest.fixture(scope="module")
def nets():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {name: load(net, **settings) for name, (net, settings, _) in NETS.items()}


def record(net, modules):
    """What the modules give for the images, in the order of their calls."""
    found = []
    handles = [m.register_forward_hook(lambda _, __, output: found.append(output)) for m in modules]
    with torch.no_grad():
        net(IMAGES)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", NETS)
def test_maps_are_the_means_of_what_the_modules_give(nets, name):
    net, sizes = nets[name], NETS[name][2]
    inner = net.model
    modules = {
        "cbam": lambda: [each.spatial for each in inner.attention],
        "ran": lambda: [inner.stages[index].mask for index in (1, 3, 5)],
        "warn": lambda: [each.masks for each in inner.attention],
    }[name]()
    for stage, (gate, size) in enumerate(zip(record(net, modules), sizes, strict=True)):
        assert gate.shape[2:] == (size, size)
        for number in (stage, stage - len(sizes)):
            found = xcam.explain(net, IMAGES, method=name, stage=number)
            assert_close(found.raw, gate.mean(1))
    assert_close(xcam.explain(net, IMAGES, method=name).raw, gate.mean(1))  # the last by default


def test_gate_of_cbam_is_in_its_range_and_warns_sums_to_one(nets):
    cbam = xcam.explain(nets["cbam"], IMAGES, method="cbam", stage=0).raw
    assert 0.5 <= cbam.min() < cbam.max() < 1
    masks = xcam.explain(nets["warn"], IMAGES, method="warn").raw
    assert_close(masks.sum((1, 2)), torch.ones(2))


def test_cbam_is_found_in_any_cnn():
    """Behind a stage of torchvision's net, inside the normalization, in a wrapper."""
    net = load("torchvision:resnet18", num_classes=4)
    net.model.layer1 = nn.Sequential(net.model.layer1, CBAM(64))
    net.model.layer3 = nn.Sequential(net.model.layer3, CBAM(256)).eval()
    net.eval()
    (first, second) = record(net, [net.model.layer1[1].spatial, net.model.layer3[1].spatial])
    wrapped = nn.DataParallel(net)
    assert_close(xcam.explain(wrapped, IMAGES, method="cbam").raw, second[:, 0])
    assert_close(xcam.explain(wrapped, IMAGES, method="cbam", stage=0).raw, first[:, 0])
    other = xcam.explain(wrapped, IMAGES, 1)  # as any other net
    assert other.maps.isfinite().all()


@pytest.mark.parametrize("name", NETS)
def test_other_nets_are_refused_with_a_net_that_is_not(name):
    net = Normalized(GapNet(), (0.5,), (0.5,))
    with pytest.raises(
        LayerError, match=r"^the model has no \w+ of xcam.models.whitebox"
    ) as caught:
        xcam.explain(net, IMAGES, method=name)
    example = str(caught.value).split("such as ")[1].split(", or use")[0]
    assert xcam.explain(eval(example), IMAGES, method=name).maps.isfinite().all()
    assert xcam.explain(net, IMAGES, method="rise", n_masks=4).maps.isfinite().all()


def test_stage_that_the_net_does_not_call_is_refused_with_those_that_it_calls():
    net = load("torchvision:resnet18", num_classes=4).eval()
    net.model.layer1 = nn.Sequential(net.model.layer1, CBAM(64)).eval()
    net.model.spare = CBAM(16).eval()
    words = r"^the model does not call 'model.spare.spatial', its stage -1; choose .* calls: 0$"
    with pytest.raises(LayerError, match=words):
        xcam.explain(net, IMAGES, method="cbam")
    assert xcam.explain(net, IMAGES, method="cbam", stage=0).maps.isfinite().all()
    net.model.layer1 = net.model.layer1[0]
    with pytest.raises(LayerError, match=r"its stage 0; use 'rise'$"):
        xcam.explain(net, IMAGES, method="cbam", stage=0)


@pytest.mark.parametrize("stage", [3, -4])
def test_stage_that_is_not_there_is_refused(nets, stage):
    words = rf"^stage must be from -3 to 2, .* has 3 SpatialGate modules, got {stage}$"
    with pytest.raises(ValueError, match=words):
        xcam.explain(nets["cbam"], IMAGES, method="cbam", stage=stage)
