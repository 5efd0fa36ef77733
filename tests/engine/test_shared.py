"""Passes that are shared in a block: made once, never stale, counted, freed with the block."""

import copy
import gc
import threading
import weakref

import numpy as np
import pytest
import torch
from nets import Staged
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.core import Target
from xcam.engine import forward, shared
from xcam.engine.clean import clean_logits
from xcam.engine.forward import run_settings
from xcam.engine.paths import RepeatedLayer
from xcam.engine.shared import share_passes, shareable
from xcam.methods.cam.features import capture_activations, capture_activations_and_gradients

IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
calls = []


@shareable
def run(model, images, scale=1.0, fill="zero", more=()):
    calls.append(len(images))
    with torch.no_grad():
        return scale * forward.call(model, images), more


@pytest.fixture(autouse=True)
def forget():
    calls.clear()


class Net(Staged):
    """Has what may be changed in between: dropout, an attribute, a buffer, a constant."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5).eval()
        self.gain, self.parts = 1.0, [1.0]
        self.constant = torch.ones(())
        self.register_buffer("shift", torch.zeros(5))

    def forward(self, images):
        logits = self.dropout(super().forward(images))
        return self.constant * self.gain * self.parts[0] * logits + self.shift


def test_is_made_once_for_equal_arguments_in_a_block():
    net = Net()
    with share_passes(IMAGES):
        first = run(net, IMAGES)
        again = run(model=net, images=IMAGES[:], scale=1.0)  # a view of all, by name
        assert len(calls) == 1
        assert again[0] is first[0]
        run(net, IMAGES[:2])
        run(net, IMAGES.clone())
        run(net, IMAGES, 2.0)
        run(net, IMAGES, fill=torch.zeros(()))
        run(net, IMAGES, more=(1, "a"))
        run(net, IMAGES, more=(True, "a"))
        assert len(calls) == 7


def test_just_computes_outside():
    net = Net()
    for _ in range(2):
        run(net, IMAGES)
    with share_passes(IMAGES):
        run(net, IMAGES)
    with share_passes(IMAGES):
        run(net, IMAGES)
    assert len(calls) == 4


def test_another_thread_shares_nothing():
    net = Net()
    with share_passes(IMAGES):
        run(net, IMAGES)
        thread = threading.Thread(target=run, args=(net, IMAGES))
        thread.start()
        thread.join()
    assert len(calls) == 2


def step(net, optimizer):
    weights = [p for p in net.parameters() if p.requires_grad]
    optimizer = optimizer(weights)
    net(torch.rand(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()


def load(net):
    other = Net()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    net.load_state_dict(other.state_dict())


def train_a_norm(net):
    net.tail[2].train()
    with torch.no_grad():
        net(torch.rand(4, 3, 8, 8))
    net.tail[2].eval()


CHANGES = {
    "sgd": lambda net: step(net, lambda p: torch.optim.SGD(p, 0.1)),
    "adam, foreach": lambda net: step(net, lambda p: torch.optim.Adam(p, 0.1, foreach=True)),
    "adam, fused": lambda net: step(net, lambda p: torch.optim.Adam(p, 0.1, fused=True)),
    "load_state_dict": load,
    "weights through data": lambda net: net.fc.weight.data.mul_(2),
    "weights set as data": lambda net: setattr(net.fc.weight, "data", torch.ones(5, 4)),
    "weights through numpy": lambda net: np.multiply(
        net.fc.bias.detach().numpy(), 2, out=net.fc.bias.detach().numpy()
    ),
    "weights replaced": lambda net: setattr(net.fc, "weight", nn.Parameter(torch.ones(5, 4))),
    "buffer": lambda net: net.shift.add_(1),
    "buffer through data": lambda net: net.shift.data.add_(1),
    "statistics of a norm": train_a_norm,
    "module replaced": lambda net: setattr(net, "layer", nn.Conv2d(4, 4, 3, padding=1)),
    "module added": lambda net: net.tail.append(nn.Tanh()),
    "hook": lambda net: net.layer.register_forward_hook(lambda *a: 2 * a[-1]),
    "hook before": lambda net: net.layer.register_forward_pre_hook(lambda m, a: (2 * a[0],)),
    "patched forward": lambda net: setattr(net.tail, "forward", torch.tanh),
    "attribute": lambda net: setattr(net, "gain", 2.0),
    "attribute of a module": lambda net: setattr(net.tail[2], "eps", 0.1),
    "item of an attribute": lambda net: net.parts.__setitem__(0, 3.0),
    "constant in place": lambda net: net.constant.mul_(2),
    "constant replaced": lambda net: setattr(net, "constant", torch.full((), 2.0)),
    "double": lambda net: net.double(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_model_runs_again(change):
    net = Net()
    images = IMAGES.double() if change is CHANGES["double"] else IMAGES
    with share_passes(images):
        if change is not CHANGES["double"]:
            run(net, images)
        change(net)
        (found, _), calls_before = run(net, images), len(calls)
        run(net, images)
        assert len(calls) == calls_before
    with torch.no_grad():
        assert_close(found, net(images))


def test_model_in_another_mode_runs_again():
    net = Net()
    with share_passes(IMAGES):
        plain, _ = run(net, IMAGES)
        net.dropout.train()
        assert (run(net, IMAGES)[0] == net.shift).any()
        net.dropout.eval()
        assert run(net, IMAGES)[0] is plain


def test_change_that_is_undone_shares_again_or_runs_again_but_is_right():
    net = Net()
    with share_passes(IMAGES):
        first, _ = run(net, IMAGES)
        handle = net.layer.register_forward_hook(lambda *arguments: 2 * arguments[-1])
        hooked, _ = run(net, IMAGES)
        handle.remove()
        assert_close(run(net, IMAGES)[0], first)
        assert (hooked - first).abs().max() > 1e-3


def test_copy_is_another_model():
    net = Net()
    with share_passes(IMAGES):
        first, _ = run(net, IMAGES)
        other = copy.deepcopy(net)
        with torch.no_grad():
            other.fc.bias += 1
        assert_close(run(other, IMAGES)[0], first + 1)
        assert_close(run(net, IMAGES)[0], first)


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images.mul_(0.5),
        lambda images: images[1, 2, 3].zero_(),
        lambda images: images.data.mul_(0.5),
        lambda images: np.multiply(images.numpy(), 0.5, out=images.numpy()),
        lambda images: images.numpy()[0, :, 3:5, 2:4].fill(0),
        lambda images: images.data[1, 2, 5].fill_(1),
    ],
    ids=["in place", "one row", "data", "numpy", "a patch by numpy", "a row of data"],
)
def test_changed_images_run_again(change):
    net, images = Net(), IMAGES.clone()
    with share_passes(images):
        run(net, images)
        change(images)
        with torch.no_grad():
            assert_close(run(net, images)[0], net(images))


def test_settings_of_the_run_count():
    net = Net()
    with share_passes(IMAGES):
        full, _ = run(net, IMAGES)
        with run_settings(precision="bf16"):
            assert (run(net, IMAGES)[0] != full).any()
        with torch.autocast("cpu"):
            assert (run(net, IMAGES)[0] != full).any()
        assert run(net, IMAGES)[0] is full


def test_changed_function_mode_counts():
    """Guided Backpropagation changes ReLUs by a mode, and must not see plain gradients."""
    with share_passes(IMAGES):
        plain = xcam.explain(Net(), IMAGES, 0, "saliency")
        for name in ("guided_backprop", "deconvnet"):
            net = Net()
            shared_maps = xcam.explain(net, IMAGES, 0, name).raw
            assert (shared_maps - plain.raw).abs().max() > 1e-4


def test_result_that_somebody_wrote_to_is_made_again():
    net = Net()
    with share_passes(IMAGES):
        first = run(net, IMAGES)[0].clone()
        run(net, IMAGES)[0].mul_(7)
        assert_close(run(net, IMAGES)[0], first)
        assert len(calls) == 2


@shareable
def odd(images, kind):
    calls.append(kind)
    return {"graph": lambda: images * 2, "list": lambda: [images], "none": lambda: None}[kind]()


@pytest.mark.parametrize(("kind", "times"), [("graph", 2), ("list", 2), ("none", 1)])
def test_what_carries_a_graph_or_may_change_is_not_kept(kind, times):
    images = IMAGES.clone().requires_grad_()
    with share_passes(images):
        for _ in range(2):
            odd(images, kind)
    assert len(calls) == times


def test_what_may_change_unseen_is_not_shared():
    net = Net()
    with share_passes(IMAGES):
        for _ in range(2):
            run(net, IMAGES, more=(np.zeros(3),))
    with torch.inference_mode():
        images = torch.rand(2, 3, 8, 8)
        with share_passes(images):
            for _ in range(2):
                run(net, images)
    assert len(calls) == 4


def test_inference_weights_are_compared_by_value():
    with torch.inference_mode():
        net = Net()
    with share_passes(IMAGES):
        first, _ = run(net, IMAGES)
        assert run(net, IMAGES)[0] is first
        with torch.inference_mode():
            net.fc.bias += 1
        assert_close(run(net, IMAGES)[0], first + 1)


@shareable
def fail(images):
    calls.append(0)
    raise ValueError("no")


def test_errors_are_not_kept():
    with share_passes(IMAGES):
        for _ in range(2):
            with pytest.raises(ValueError, match="no"):
                fail(IMAGES)
    assert len(calls) == 2


@shareable
def noted(images):
    forward.note("something")
    forward.record_repeated_layer("layer", RepeatedLayer(2))
    with torch.no_grad():
        return forward.call(torch.nn.Identity(), images)


def test_counts_and_notes_are_those_of_a_call_by_itself():
    with share_passes(IMAGES):
        for shared_passes in (0, 3):
            with run_settings() as runtime:
                noted(IMAGES)
            assert (runtime.passes, runtime.shared_passes) == (3, shared_passes)
            assert runtime.notes == ["something"]
            assert runtime.repeated_layers == {"layer": RepeatedLayer(2)}
            assert (runtime.shared_seconds > 0) == bool(shared_passes)


@shareable
def outer(model, images):
    return clean_logits(model, images) + noted(images).mean()


def test_nested_results_count_whole():
    net = Net()
    with share_passes(IMAGES):
        clean_logits(net, IMAGES)
        for shared_passes in (3, 6):
            with run_settings() as runtime:
                outer(net, IMAGES)
            assert (runtime.passes, runtime.shared_passes) == (6, shared_passes)


def test_results_are_freed_with_their_block():
    net, images = Net(), IMAGES.clone()
    with share_passes(images):
        clean = weakref.ref(run(net, images)[0])
        with share_passes():
            masked = images * 0.5
            inner = weakref.ref(run(net, masked)[0])
            assert inner() is not None
            run(net, images, 2.0)  # of what the outer block was opened for
        held = weakref.ref(masked)
        del masked
        gc.collect()
        assert inner() is held() is None
        assert clean() is not None
        run(net, images, 2.0)
        assert len(calls) == 3
    watched = weakref.ref(images), weakref.ref(net)
    del images, net
    gc.collect()
    assert clean() is None
    assert [some() for some in watched] == [None, None]


def test_what_is_made_on_the_way_is_freed_at_once():
    """A shared function keeps its result, and not the passes inside it on images of its own."""
    made = []

    @shareable
    def twice(model, images):
        (found, _), (other, _) = run(model, images * 0.5), run(model, images)
        made.extend([weakref.ref(found), weakref.ref(other)])
        return found.clone()

    net = Net()
    with share_passes(IMAGES):
        twice(net, IMAGES)
        gc.collect()
        assert made[0]() is None
        assert made[1]() is run(net, IMAGES)[0]


def test_a_block_keeps_what_fits_its_budget(monkeypatch):
    monkeypatch.setattr(shared._Scope, "room", 5 * 3 * 4)  # the logits of three images
    monkeypatch.setattr(shared, "_BUDGET", 5 * 3 * 4)
    net = Net()
    with share_passes(IMAGES):
        scope = shared._scopes.get()[-1]
        scope.room = 5 * 3 * 4
        for _ in range(2):
            run(net, IMAGES)
            run(net, IMAGES, 2.0)
    assert len(calls) == 3
    assert scope.room == 0


class TestFeatures:
    def test_layer_is_captured_once_for_a_score(self):
        net, rows = Net(), []
        net.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))

        def capture():
            target = Target.of(1, IMAGES)
            found = capture_activations_and_gradients(net, IMAGES, target, "layer", "prob")
            return *found, target.logits

        alone = capture()
        with share_passes(IMAGES):
            for _ in range(2):
                assert_close(capture(), alone)
        assert rows == [3, 3]

    @pytest.mark.parametrize("target", [2, [0, 1, 3], lambda output, rows: output[:, 1]])
    def test_another_target_layer_or_reading_is_another_gradient(self, target):
        net = Net()
        cases = [(target, "layer", "logit"), (4, "layer", "logit"), (4, "tail.1", "logit")]
        cases += [(4, "layer", "prob")]

        def capture_all():
            return [
                capture_activations_and_gradients(net, IMAGES, Target.of(aim, IMAGES), *rest)
                for aim, *rest in cases
            ]

        alone = capture_all()
        with share_passes(IMAGES):
            for found in (capture_all(), capture_all()):
                assert_close(found, alone)

    def test_predicted_class_is_bound_also_without_a_pass(self):
        net = Net()
        with share_passes(IMAGES):
            for _ in range(2):
                target = Target.of(None, IMAGES)
                capture_activations(net, IMAGES, target, "layer")
                assert torch.equal(target.classes, net(IMAGES).argmax(1))
