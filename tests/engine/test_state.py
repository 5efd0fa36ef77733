"""`untouched` and `gradients`: everything restored, in success and in failure."""

import multiprocessing
import os
import random
import threading
import time
import warnings

import numpy as np
import pytest
import torch
from nets import Staged, Untidy, mixed, pictures, unchanged
from torch import nn

from xcam.engine import gradients, restore, untouched, unwrap
from xcam.errors import ModelOutputError
from xcam.forks import importing


@pytest.fixture
def images():
    return pictures()


def guard_and_exit(net):
    other = Untidy()
    for model in (other, net):
        with untouched(model):
            model.count += 1
        assert model.count == 0


def disturb(net, images, error=None):
    net(images)
    net.train()
    net.requires_grad_()
    net(images).sum().backward()
    if error:
        raise error


class TestUntouched:
    def test_model_is_in_eval_mode_and_frozen_inside(self):
        net = mixed(Staged())
        assert any(p.grad is not None for p in net.parameters())
        with untouched(net):
            assert not any(module.training for module in net.modules())
            assert not any(p.requires_grad for p in net.parameters())
            assert all(p.grad is None for p in net.parameters())

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_everything_is_restored(self, images, error):
        net = mixed(Untidy())
        with unchanged(net, images):
            with untouched(net):
                disturb(net, images)
            with pytest.raises(error), untouched(net):
                disturb(net, images, error)

    def test_helper_detects_every_change(self, images):
        net = mixed(Untidy())
        with pytest.raises(AssertionError) as caught, unchanged(net, images):
            disturb(net, images)
        changed = str(caught.value)
        for place in (".count", ".quiet", ".wave", ".mean", "stem: mode", "fc.weight: grad"):
            assert place in changed
        for generator in ("torch", "numpy", "python"):
            assert generator in changed

    def test_buffers_that_were_replaced_or_deleted(self, images):
        net = Untidy()
        mean = net.mean
        with untouched(net):
            net(images)
            assert net.mean is not mean
            del net.count
        assert net.mean is mean
        assert net.count == 0

    def test_buffer_versions_do_not_change(self):
        net = Staged().train()
        versions = [buffer._version for buffer in net.buffers()]
        with untouched(net):
            pass
        assert [buffer._version for buffer in net.buffers()] == versions

    def test_shared_buffer(self, images):
        net = Untidy()
        net.tail.register_buffer("same", net.count)
        with untouched(net):
            net(images)
        assert net.tail.same is net.count
        assert net.count == 0

    def test_model_made_in_inference_mode(self, images):
        with torch.inference_mode():
            net = mixed(Untidy())
        with unchanged(net, images), torch.inference_mode(), untouched(net):
            net(images)

    def test_model_made_in_inference_mode_and_used_outside(self, images):
        with torch.inference_mode():
            net = mixed(Staged())
        with unchanged(net, images), untouched(net):
            net.tail(torch.zeros(1, 4, 8, 8))

    def test_buffers_do_not_become_inference_tensors(self, images):
        net = mixed(Untidy())
        with torch.inference_mode(), unchanged(net, images), untouched(net):
            net(images)
        assert not any(buffer.is_inference() for buffer in net.buffers())

    def test_nested_block_leaves_restoring_to_the_outer(self, images):
        net = mixed(Untidy())
        with unchanged(net, images), untouched(net):
            with untouched(net):
                net(images)
            assert not net.tail.training
            assert net.count == 1  # the outer block restores it
        assert net.count == 0

    @pytest.mark.parametrize("wrap", [lambda net: net, nn.DataParallel])
    def test_nested_block_copies_no_buffers(self, wrap, monkeypatch):
        copies = []
        copy = restore._join
        monkeypatch.setattr(restore, "_join", lambda b: copies.append(b) or copy(b))
        net = wrap(Untidy())
        with untouched(net):
            first = len(copies)
            with untouched(unwrap(net)), untouched(unwrap(net).tail):
                pass
            assert len(copies) == first > 0

    def test_nested_block_guards_another_model(self, images):
        net, other = mixed(Untidy()), mixed(Untidy())
        with untouched(net):
            with unchanged(other, images), untouched(other):
                other(images)
            assert other.training
            with (
                unchanged(net, images),
                pytest.raises(ValueError, match="inside"),
                untouched(other),
            ):
                raise ValueError("inside")
        with unchanged(net, images), untouched(net):  # nothing is remembered
            net(images)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_process_forked_while_another_thread_holds_the_lock(self):
        """The lock is held by a thread that the new process does not have."""
        net, inside, leave = Untidy(), threading.Event(), threading.Event()

        def hold():
            with untouched(net):
                inside.set()
                leave.wait(60)

        thread = threading.Thread(target=hold)
        thread.start()
        assert inside.wait(60)
        process = multiprocessing.get_context("fork").Process(target=guard_and_exit, args=(net,))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
            process.start()
        process.join(60)
        alive = process.is_alive()
        process.kill()
        leave.set()
        thread.join()
        assert not alive
        assert process.exitcode == 0

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_process_forked_while_another_thread_imports(self):
        """The import ends first: half a module could never be imported in the new process."""
        inside, ended = threading.Event(), []

        def import_slowly():
            with importing():
                inside.set()
                time.sleep(0.3)
                ended.append(True)

        thread = threading.Thread(target=import_slowly)
        thread.start()
        assert inside.wait(60)
        with importing(), warnings.catch_warnings():  # its own import is no hindrance
            warnings.simplefilter("ignore", DeprecationWarning)
            process = os.fork()
            if not process:
                os._exit(0 if ended else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
        thread.join()

    def test_modes_are_set_without_calling_train(self):
        class Merging(Staged):
            def train(self, mode=True):
                raise RuntimeError("would merge weights")

        net = Merging.__new__(Merging)
        nn.Module.__init__(net)
        with untouched(net):
            assert not net.training
        assert net.training

    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
    def test_scripted_model_is_restored(self, images):
        net = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
        mean = net.state_dict()["1.running_mean"].clone()
        with untouched(net):
            assert not any(module.training for module in net.modules())
            net.train()
            net(images)
            assert not torch.equal(net.state_dict()["1.running_mean"], mean)
        assert all(module.training for module in net.modules())
        assert torch.equal(net.state_dict()["1.running_mean"], mean)

    def test_weight_norm_by_hooks_is_restored(self, images):
        net = Staged()
        with pytest.warns(FutureWarning, match="weight_norm"):
            nn.utils.weight_norm(net.layer)
        mixed(net)
        with unchanged(net, images), untouched(net):
            net(images)

    def test_random_states_are_restored(self):
        def draw():
            return torch.rand(1).item(), np.random.rand(), random.random()

        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        expected = [draw(), draw()]
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        first = draw()
        with untouched(Staged()):
            draw()
            torch.manual_seed(7), np.random.seed(7), random.seed(7)
        assert [first, draw()] == expected


class TestGradients:
    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_gradients_are_on_in_any_mode_of_the_caller(self, mode, images):
        net = Staged()
        with mode():
            with gradients(net):
                leaf = images.clone().requires_grad_()
                (gradient,) = torch.autograd.grad(leaf.square().sum(), leaf)
            assert not torch.is_grad_enabled()
        assert torch.equal(gradient, 2 * images)

    def test_model_with_inference_tensors_is_refused(self):
        net = Staged()
        with torch.inference_mode():
            net.tail[2].running_mean = torch.zeros(4)
        refused = pytest.raises(ModelOutputError, match=r"'tail.2.running_mean'.*inference_mode")
        with refused, gradients(net):
            pass


class Writer(nn.Module):
    """Writes into its buffers without raising their version, or not at all."""

    def __init__(self, writes):
        super().__init__()
        self.writes = writes
        self.register_buffer("nan", torch.tensor([torch.nan, 1.0]))
        self.register_buffer("flag", torch.tensor(True))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("low", torch.ones(2, 2, dtype=torch.float16))
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        if self.writes:
            self.count.data.add_(1)
            self.flag.data.logical_not_()
            self.low.data.t()[0, 1] = 5
            self.norm.train()(images)
        return images.mean((2, 3))


@pytest.mark.parametrize("writes", [True, False])
def test_buffers_of_every_kind_are_written_back_only_if_they_changed(writes, monkeypatch):
    written = []
    write = restore._write
    monkeypatch.setattr(restore, "_write", lambda b, v: written.append(b) or write(b, v))
    net = Writer(writes)
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    with untouched(net):
        net(torch.rand(2, 3, 4, 4))
    for name, buffer in net.named_buffers():
        torch.testing.assert_close(buffer, before[name], rtol=0, atol=0, equal_nan=True)
    assert bool(written) == writes
