"""Devices, precisions and wrappers: results stay where the images are, and are the same."""

import functools

import numpy as np
import pytest
import torch
from nets import Checkpointed, mixed, pictures, unchanged
from pretend_device import DEVICES
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.models.toy import GapNet
from xcam.testing import quick
from xcam.testing.method_subject import prepare_net

IMAGES = pictures(3, size=16)
TARGETS = [0, 3, 1]
METHODS = xcam.list_methods()


def net_for(name):
    return prepare_net(quick(xcam.get_method(name)()), GapNet())


def explained(name, model, images=IMAGES, **options):
    return xcam.explain(model, images, TARGETS, quick(xcam.get_method(name)()), **options)


def correlation(first, second):
    if first.std() == 0:
        return float(torch.equal(first, second))
    return float(np.corrcoef(first.cpu().flatten(), second.cpu().flatten())[0, 1])


@pytest.fixture
def no_host_copies(monkeypatch):
    """Makes every way from a tensor to the host raise."""

    def refuse(*args, **kwargs):
        raise AssertionError("a tensor was copied to the host")

    for name in ("cpu", "numpy", "__array__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)


@pytest.fixture(scope="module", autouse=True)
def no_compiled_code_left():
    yield
    torch.compiler.reset()


@functools.cache
def plain(name, dtype=torch.float32):
    """What the plain net gives, for images that were rounded to a type."""
    return explained(name, net_for(name), IMAGES.to(dtype).float())


@pytest.mark.parametrize("name", METHODS)
class TestEveryMethod:
    def test_no_tensor_goes_to_the_host(self, name, no_host_copies):
        with pytest.raises(AssertionError, match="copied to the host"):
            IMAGES.cpu()
        explained(name, net_for(name))

    def test_bf16_model(self, name):
        net = mixed(net_for(name)).bfloat16()
        with unchanged(net):
            got = explained(name, net, IMAGES.bfloat16())
        self.about(got, plain(name, torch.bfloat16))

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_precision(self, name, precision):
        net = mixed(net_for(name))
        with unchanged(net, IMAGES):
            got = explained(name, net, precision=precision)
        self.about(got, plain(name))

    def about(self, got, expected):
        assert got.maps.dtype == got.logits.dtype == torch.float32
        assert got.maps.isfinite().all()
        for maps, truth in zip(got.maps, expected.maps, strict=True):
            assert correlation(maps, truth) > 0.9

    @pytest.mark.parametrize("wrap", ["compiled", "compiled in place", "parallel"])
    def test_wrapped_model(self, name, wrap):
        expected = plain(name)
        net = mixed(net_for(name))
        model = net
        if wrap == "compiled":
            model = torch.compile(net, backend="eager")
        elif wrap == "parallel":
            model = nn.DataParallel(net)
        else:
            net.compile(backend="eager")
        with unchanged(model, IMAGES):
            got = explained(name, model)
        assert_close(
            got.maps, expected.maps, atol=1e-5 * float(expected.maps.abs().max()), rtol=1e-4
        )
        assert repr(got.method) == repr(expected.method)

    @DEVICES
    def test_precision_on_a_device(self, name, device):
        net, images = net_for(name).to(device), IMAGES.to(device)
        for precision in ("bf16", "fp16"):
            assert explained(name, net, images, precision=precision).maps.isfinite().all()


@DEVICES
class TestDevices:
    def test_random_state_of_the_device(self, device):
        random = torch.cuda if device == "cuda" else torch
        before = random.get_rng_state()
        net = nn.Sequential(GapNet(), nn.Dropout()).to(device).train()

        class Draws(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = net

            def forward(self, images):
                return self.net(images) + torch.rand((), device=images.device)

        xcam.explain(Draws(), IMAGES.to(device), 1, layer="net.0.features")
        assert torch.equal(random.get_rng_state(), before)

    def test_data_parallel(self, device):
        model, images = nn.DataParallel(GapNet().to(device)), IMAGES.to(device)
        for name in ("gradcam", "rise", "smoothgrad"):
            expected = explained(name, GapNet().to(device), images).maps
            assert_close(explained(name, model, images).maps, expected)

    def test_backs_off_when_the_memory_runs_out(self, device):
        class Hungry(GapNet):
            def forward(self, images):
                if len(images) > 2:
                    torch.empty(2**50, device=images.device)
                return super().forward(images)

        images = IMAGES.to(device)
        expected = xcam.explain(GapNet().to(device), images, 1).maps
        got = xcam.explain(Hungry().to(device), images, 1, layer="features").maps
        assert_close(got, expected)


@DEVICES
@pytest.mark.parametrize("section", ["layer", "all"])
def test_checkpointed_layer(section, device):
    """On a GPU autograd runs the section again in a thread of its own."""
    net = Checkpointed(section, reentrant=False)
    net.tail[0].inplace = False
    expected = xcam.explain(net, pictures(), 1, layer="layer").raw
    got = xcam.explain(net.to(device), pictures().to(device), 1, layer="layer").raw
    assert_close(got.cpu(), expected, atol=1e-4, rtol=1e-3)


def test_images_elsewhere(accelerator):
    expected = f"images are on cpu and the model is on {accelerator.device}"
    with pytest.raises(ValueError, match=expected):
        xcam.explain(GapNet().to(accelerator.device), IMAGES)


def test_targets_and_indices_from_the_host(accelerator):
    device = accelerator.device
    images = IMAGES.to(device)
    got = xcam.explain(GapNet().to(device), images, torch.tensor(TARGETS))
    assert got.target.device == device
    assert got[torch.tensor([0, 2])].maps.device == device
    assert got[torch.tensor([0, 2], device=device)].target.tolist() == [0, 1]
    assert got.overlay(images).device == device
