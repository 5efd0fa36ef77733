"""The recorder of a pass: what it records, and that its hooks act in their own passes only."""

import copy
import multiprocessing
import os
import threading
import warnings

import pytest
import torch
from nets import Twice, pictures
from torch import nn

import xcam
from xcam.engine import hooks, record_pass


def small_net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())),
            nn.Linear(4, 5),
        ).eval()


class TestRecordPass:
    def test_calls_are_in_the_order_of_return(self):
        net, images = small_net(), pictures(2)
        passed = record_pass(net, images)
        assert [call.name for call in passed.calls] == ["0", "1", "2.0", "2.1", "2", "3"]
        assert torch.equal(passed.output, net(images))
        assert passed.images is passed["0"].inputs[0] is images
        assert passed["3"].output is passed.output
        assert passed["3"].inputs[0] is passed["2"].output
        assert passed["1"].module is net[1]

    def test_some_modules_only(self):
        passed = record_pass(small_net(), pictures(2), modules=["3", "1"])
        assert [call.name for call in passed.calls] == ["1", "3"]
        with pytest.raises(KeyError, match="0"):
            passed["0"]

    def test_module_called_twice_is_recorded_with_its_last_output(self):
        net, images = Twice(), pictures(2)
        outputs = []
        net.layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        passed = record_pass(net, images)
        assert passed["layer"].times == len(outputs) == 2
        assert passed["layer"].output is outputs[-1]
        assert passed["stem"].times == 1

    def test_outputs_without_tensors(self):
        class Counting(nn.Module):
            def forward(self, images):
                return {"count": 3, "tensors": [torch.arange(2), images * 2]}

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.count, self.name = Counting(), nn.Identity()

            def forward(self, images):
                self.name("a string")
                return self.count(images)["tensors"][1]

        passed = record_pass(Net(), pictures(2))
        assert passed["name"].tensor is None
        assert passed["count"].tensor is passed.output

    def test_compiled_parts_run_eagerly(self):
        net, images = small_net(), pictures(2)
        net[0] = torch.compile(net[0], backend="eager")
        net(images)
        assert "0._orig_mod" in [call.name for call in record_pass(net, images).calls]

    def test_no_hook_is_left(self):
        net = small_net()
        with pytest.raises(RuntimeError):
            record_pass(net, torch.zeros(2, 4, 9, 9))
        record_pass(net, pictures(2))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def predict_under_number_and_exit(net, images, expected, number):
    """Predict as a thread with the given number would."""
    threading.get_ident = lambda: number
    with torch.no_grad():
        assert torch.equal(net(images), expected)


class TestHooks:
    def test_change_input_and_output(self):
        net, images = small_net(), pictures(2)
        features = net[:3](images)
        with hooks(
            net[3],
            before=lambda inputs: (inputs[0] * 2,),
            after=lambda inputs, output: (output, inputs[0]),
        ):
            logits, seen = net(images)
        assert torch.equal(seen, features * 2)
        assert torch.equal(logits, net[3](features * 2))
        with hooks(net[3], before=lambda inputs: None, after=lambda inputs, output: None):
            assert torch.equal(net(images), net[3](features))

    def test_other_threads_pass_through(self):
        net, images = small_net(), pictures(2)
        expected, other = net(images).detach(), []
        thread = threading.Thread(target=lambda: other.append(net(images).detach()))
        with hooks(net[0], before=lambda i: (i[0] * 0,), after=lambda _, output: output * 0):
            thread.start()
            thread.join()
            assert torch.equal(net(images), net[3].bias.expand(2, -1))
        assert torch.equal(other[0], expected)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_hooks_do_nothing_in_threads_of_a_forked_process(self):
        """Not even where Python gives a new thread the number of one that is gone."""
        net, images, inside, leave = small_net(), pictures(2), threading.Event(), threading.Event()
        expected = net(images).detach()

        def hold():
            with hooks(net[0], after=lambda _, output: output * 0):
                inside.set()
                leave.wait(60)

        thread = threading.Thread(target=hold)
        thread.start()
        assert inside.wait(60)
        process = multiprocessing.get_context("fork").Process(
            target=predict_under_number_and_exit, args=(net, images, expected, thread.ident)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
            process.start()
        process.join(60)
        process.kill()
        leave.set()
        thread.join()
        assert process.exitcode == 0

    def test_hooks_do_nothing_in_a_copy_of_the_model(self):
        net, images = small_net(), pictures(2)
        with hooks(net[0], after=lambda _, output: output * 0):
            twin = copy.deepcopy(net)
            assert torch.equal(twin(images), twin[3](twin[:3](images)))
            assert not torch.equal(twin(images), net(images))


class Gate(nn.Module):
    """Global average pooling that lets another thread predict before the watched one goes on."""

    def __init__(self):
        super().__init__()
        self.watched, self.reached, self.passed = None, threading.Event(), threading.Event()

    def forward(self, features):
        if threading.get_ident() == self.watched and not features.is_meta:
            self.reached.set()
            assert self.passed.wait(30)
        return features.mean((2, 3))


@pytest.mark.parametrize(
    "method",
    [
        "cam",
        "gradcam",
        "eigencam",
        "ablationcam",
        "scorecam",
        "guided_gradcam",
        "deconvnet",
        "rise",
    ],
)
def test_another_thread_predicts_in_the_middle_of_an_explanation(method):
    """Neither the map nor the prediction is that of the other thread's image."""
    gate = Gate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), gate, nn.Linear(8, 5)).eval()
    mine, others = pictures(1), pictures(1, seed=1)
    predicted, expected = [], net(others).detach()
    raw = xcam.explain(net, mine, 1, method).raw

    def predict():
        assert gate.reached.wait(30)
        predicted.append(net(others).detach())
        gate.passed.set()

    gate.watched = threading.get_ident()
    thread = threading.Thread(target=predict)
    thread.start()
    again = xcam.explain(net, mine, 1, method).raw
    thread.join()
    assert torch.equal(again, raw)
    assert torch.equal(predicted[0], expected)
