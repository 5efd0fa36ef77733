"""Devices, precisions and wrappers: results stay where the images are, and are the same."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from nets import Checkpointed, mixed, pictures, unchanged
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.models.toy import GapNet
from xcam.testing import quick
from xcam.testing.method_subject import attach_head
from xcam.testing.metric_subject import MetricSubject
from xcam.testing.probe import ProbeNet

IMAGES = pictures(3, size=16)
TARGETS = [0, 3, 1]
METHODS = xcam.list_methods()
DEVICE = "cuda"
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def net_for(name):
    return attach_head(quick(xcam.get_method(name)()), GapNet())


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


@pytest.fixture(autouse=True)
def no_compiled_code_left():
    yield
    torch.compiler.reset()


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
        self.about(name, got, IMAGES.bfloat16().float())

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_precision(self, name, precision):
        net = mixed(net_for(name))
        with unchanged(net, IMAGES):
            got = explained(name, net, precision=precision)
        self.about(name, got)

    def about(self, name, got, images=IMAGES):
        assert got.maps.dtype == got.logits.dtype == torch.float32
        assert got.maps.isfinite().all()
        expected = explained(name, net_for(name), images)
        for maps, truth in zip(got.maps, expected.maps, strict=True):
            assert correlation(maps, truth) > 0.9

    @pytest.mark.parametrize("wrap", ["compiled", "compiled in place", "parallel"])
    def test_wrapped_model(self, name, wrap):
        expected = explained(name, net_for(name))
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

    @CUDA
    def test_cuda(self, name):
        expected = explained(name, net_for(name))
        net = mixed(net_for(name)).cuda()
        images = IMAGES.cuda()
        with unchanged(net, images):
            got = explained(name, net, images)
        for tensor in (got.maps, got.raw, got.target, got.logits):
            assert tensor.is_cuda
        scale = float(expected.maps.abs().max())
        assert_close(got.maps.cpu(), expected.maps, atol=1e-3 * scale, rtol=1e-2)

    @CUDA
    def test_precision_on_cuda(self, name):
        net, images = net_for(name).cuda(), IMAGES.cuda()
        for precision in ("bf16", "fp16"):
            assert explained(name, net, images, precision=precision).maps.isfinite().all()


@CUDA
@pytest.mark.parametrize("name", xcam.list_metrics())
def test_metric_on_cuda(name):
    metric = quick(xcam.get_metric(name)())
    subject = MetricSubject(metric)
    case = subject.build_case()
    expected = metric.finish(subject.run(case))
    moved = dataclasses.replace(
        case.explanation,
        **{part: getattr(case.explanation, part).to(DEVICE) for part in ("maps", "raw", "target")},
    )
    truth = None if case.truth is None else case.truth.to(DEVICE)
    net = ProbeNet().to(DEVICE)
    rows = metric.score(net, case.images.to(DEVICE), moved, truth)
    assert rows.device.type == DEVICE
    low, high = metric.spec.bounds
    atol = 1e-3 * (high - low if math.isfinite(high - low) else 1)
    assert_close(metric.finish(rows).cpu(), expected, atol=atol, rtol=1e-2, equal_nan=True)


@CUDA
class TestCuda:
    def test_random_state_of_the_device(self):
        before = torch.cuda.get_rng_state()
        net = nn.Sequential(GapNet(), nn.Dropout()).cuda().train()

        class Draws(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = net

            def forward(self, images):
                return self.net(images) + torch.rand((), device=images.device)

        xcam.explain(Draws(), IMAGES.cuda(), 1, layer="net.0.features")
        assert torch.equal(torch.cuda.get_rng_state(), before)

    @pytest.mark.parametrize("section", ["layer", "all"])
    def test_checkpointed_layer(self, section):
        """Autograd runs the section again in a thread of its own."""
        net = Checkpointed(section, reentrant=False)
        net.tail[0].inplace = False
        expected = xcam.explain(net, pictures(), 1, layer="layer").raw
        got = xcam.explain(net.cuda(), pictures().cuda(), 1, layer="layer").raw
        assert_close(got.cpu(), expected, atol=1e-4, rtol=1e-3)

    def test_images_elsewhere(self):
        with pytest.raises(ValueError, match=r"images are on cpu and the model is on cuda:0"):
            xcam.explain(GapNet().cuda(), IMAGES)

    def test_targets_and_indices_from_the_host(self):
        got = xcam.explain(GapNet().cuda(), IMAGES.cuda(), torch.tensor(TARGETS))
        assert got.target.is_cuda
        assert got[torch.tensor([0, 2])].maps.is_cuda
        assert got[torch.tensor([0, 2], device="cuda")].target.tolist() == [0, 1]
        assert got.overlay(IMAGES.cuda()).is_cuda

    def test_data_parallel(self):
        model = nn.DataParallel(GapNet().cuda())
        for name in ("gradcam", "rise", "smoothgrad"):
            expected = explained(name, GapNet().cuda(), IMAGES.cuda()).maps
            assert_close(explained(name, model, IMAGES.cuda()).maps, expected)

    def test_backs_off_when_the_memory_runs_out(self):
        class Hungry(GapNet):
            def forward(self, images):
                if len(images) > 2:
                    torch.empty(2**50, device=images.device)
                return super().forward(images)

        expected = xcam.explain(GapNet().cuda(), IMAGES.cuda(), 1).maps
        assert_close(
            xcam.explain(Hungry().cuda(), IMAGES.cuda(), 1, layer="features").maps, expected
        )
