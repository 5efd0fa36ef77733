"""`capture` and `replace_output`: the layer's output and its gradient, whatever the model does."""

import copy
import gc
import threading
import weakref

import pytest
import torch
from nets import (
    PACKINGS,
    Aliased,
    Checkpointed,
    DetachedTail,
    Failing,
    InferenceBackbone,
    NoGradBackbone,
    NoGradStem,
    NoGradTail,
    Packed,
    Staged,
    Twice,
    mixed,
    pictures,
    true_gradient,
    unchanged,
)
from torch import nn
from torch.testing import assert_close

from xcam.engine import capture, find_module, replace_output, unwrap
from xcam.engine.forward import note_repeated_layers, run_settings
from xcam.errors import LayerError, ModelOutputError, UnknownNameError, XcamWarning

TARGET = 1


def captured(model, images, layer="layer"):
    with capture(model, layer) as tap:
        gradient = tap.gradient(tap(images)[:, TARGET])
        return tap.activation.detach(), gradient


def check(model, images, truth=None, layer="layer"):
    """The captured activation and gradient are those of plain autograd, and not zero."""
    features, gradient = truth or true_gradient(unwrap(model), images, TARGET)
    got = captured(model, images, layer)
    assert_close(got[0], features)
    assert_close(got[1], gradient)
    assert gradient.abs().max() > 0


@pytest.fixture
def images():
    return pictures()


class TestGradient:
    def test_inplace_relu_behind_the_layer_does_not_change_the_activation(self, images):
        net = Staged()
        assert net.tail[0].inplace
        check(net, images)
        features, _ = captured(net, images)
        assert (features < 0).any()  # the ReLU behind it has not written to it

    @pytest.mark.parametrize("net", [NoGradStem, NoGradBackbone, InferenceBackbone])
    def test_no_grad_before_the_layer(self, images, net):
        check(net(), images)

    def test_no_grad_around_the_layer(self, images):
        with pytest.raises(
            LayerError, match=r"no gradient at layer 'stem'.*another layer, such as 'tail'"
        ):
            captured(NoGradBackbone(), images, "stem")

    @pytest.mark.parametrize("net", [NoGradTail, DetachedTail])
    def test_graph_cut_behind_the_layer(self, images, net):
        with pytest.raises(LayerError, match=r"no gradient at layer 'layer'.*no_grad, detach"):
            captured(net(), images)

    def test_layer_beside_the_score(self, images):
        net = Staged()
        net.tail.requires_grad_()
        with capture(net, "layer") as tap:
            tap(images)
            unrelated = torch.ones(2, requires_grad=True) * 2
            with pytest.raises(LayerError, match="does not lead to it"):
                tap.gradient(unrelated)

    def test_frozen_weights(self, images):
        check(Staged().requires_grad_(False), images)

    def test_weights_that_train(self, images):
        net = Staged()
        with capture(net, "layer") as tap:
            output = tap(images)
            (gradient,) = torch.autograd.grad(
                output.sum(), images.requires_grad_(), allow_unused=True
            )
        assert gradient is None  # nothing before the layer is in the graph

    def test_no_grad_of_the_caller(self, images):
        with torch.no_grad():
            check(Staged(), images)
            assert not torch.is_grad_enabled()

    def test_inference_mode_of_the_caller(self, images):
        net = Staged()
        truth = true_gradient(net, images)
        with torch.inference_mode():
            check(net, images, truth)
            check(net, pictures(), truth)
            assert torch.is_inference_mode_enabled()

    @pytest.mark.parametrize("layer", ["stem", "layer"])
    def test_images_made_in_inference_mode(self, layer):
        with torch.inference_mode():
            images = pictures()
        net = Staged()
        net.stem = nn.Identity()  # would hand the inference tensor on
        net.layer = nn.Conv2d(3, 4, 1)
        truth = true_gradient(net, images)
        if layer == "layer":
            check(net, images, truth)
        else:
            assert captured(net, images, "stem")[1].abs().max() > 0

    def test_model_made_in_inference_mode(self, images):
        with torch.inference_mode():
            net = Staged()
        with pytest.raises(ModelOutputError, match=r"'stem.weight'.*inference_mode.*outside"):
            captured(net, images)
        with capture(net, "layer", grad=False) as tap:  # no gradient, no objection
            assert_close(tap(images), net(images))

    def test_weight_norm(self, images):
        net = Staged()
        nn.utils.parametrizations.weight_norm(net.layer)
        nn.utils.parametrizations.spectral_norm(net.tail[1])
        check(net.eval(), images)
        mixed(net)
        with unchanged(net, images):
            captured(net, images)

    def test_half_precision(self, images):
        net = Staged().bfloat16()
        features, gradient = true_gradient(net, images.bfloat16())
        got = captured(net, images.bfloat16())
        assert got[1].dtype == torch.bfloat16
        assert_close(got[0], features)
        assert_close(got[1], gradient)

    def test_without_grad_no_graph_is_kept(self, images):
        net = Staged()
        with capture(net, "layer", grad=False) as tap:
            output = tap(images)
            assert not output.requires_grad
            assert not tap.activation.requires_grad
            assert_close(tap.activation, net.features(images))  # not after the in-place ReLU
        assert_close(output, net(images), check_layout=False)

    def test_activation_before_a_pass_is_refused(self):
        with capture(Staged(), "layer") as tap, pytest.raises(RuntimeError, match="no forward"):
            _ = tap.activation


class TestSecondOrder:
    """`gradient(create_graph=True)`, against autograd on the tail alone."""

    @pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
    def test_gradient_of_a_gradient(self, images, mode):
        net = mixed(Staged()).double()
        net.tail[0] = nn.Softplus()  # with a ReLU alone the second gradient would be zero
        with mode(), capture(net, "layer") as tap:
            first = tap.gradient(tap(images.double())[:, TARGET].exp(), create_graph=True)
            assert first.requires_grad
            second = tap.gradient(first.square().flatten(1).sum(1))
        net.eval()
        leaf = net.features(images.double()).detach().requires_grad_()
        score = net.head(leaf)[:, TARGET].exp().sum()
        (expected,) = torch.autograd.grad(score, leaf, create_graph=True)
        assert_close(first.detach(), expected.detach())
        assert_close(second, torch.autograd.grad(expected.square().sum(), leaf)[0])
        assert second.abs().max() > 0

    def test_checkpointed_tail(self, images):
        net = Checkpointed("tail", reentrant=False).double()
        net.tail[0] = nn.Softplus()
        plain = Staged().double()
        plain.tail[0] = nn.Softplus()
        found = []
        for model in (net, plain):
            with capture(model, "layer") as tap:
                first = tap.gradient(tap(images.double())[:, TARGET].exp(), create_graph=True)
                found.append(tap.gradient(first.square()))
        assert_close(*found)

    def test_no_graph_unless_asked(self, images):
        with capture(Staged(), "layer") as tap:
            assert not tap.gradient(tap(images)[:, TARGET].exp()).requires_grad


class TestCheckpoint:
    @pytest.mark.parametrize("section", ["layer", "tail", "all"])
    def test_non_reentrant(self, images, section):
        net = Checkpointed(section, reentrant=False)
        net.tail[0].inplace = False  # a checkpointed section must not write to its input
        check(net, images)
        with capture(net, "layer") as tap:
            score, activation = tap(images)[:, TARGET], tap.activation
            tap.gradient(score)  # runs the section again
            assert tap.activation is activation
        mixed(net)
        with unchanged(net, images):
            captured(net, images)

    @pytest.mark.parametrize("section", ["layer", "all"])
    def test_rerun_in_another_thread(self, images, section):
        """As on a GPU, where autograd runs the section again in a thread of its own."""
        net, found = Checkpointed(section, reentrant=False), []
        net.tail[0].inplace = False
        with capture(net, "layer") as tap:
            score = tap(images)[:, TARGET]
            thread = threading.Thread(target=lambda: found.append(tap.gradient(score)))
            thread.start()
            thread.join()
        assert_close(found[0], true_gradient(net, images, TARGET)[1])

    @pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
    @pytest.mark.parametrize("section", ["tail", "all"])
    def test_reentrant(self, images, section):
        net = Checkpointed(section, reentrant=True)
        with unchanged(net, images), pytest.raises(LayerError, match="reentrant checkpointing"):
            captured(net, images)

    @pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
    def test_reentrant_before_the_layer(self, images):
        net = Checkpointed("layer", reentrant=True)
        truth = true_gradient(net, images)
        features = captured(net, images, "tail.0")[0]
        assert_close(features, truth[0].relu())


class TestWrappers:
    @pytest.mark.parametrize("where", ["outside", "inside", "in place"])
    def test_compiled_and_warmed_under_no_grad(self, images, where):
        net = Staged()
        model = net
        if where == "outside":
            model = torch.compile(net, backend="eager")
        elif where == "inside":
            net.layer = torch.compile(net.layer, backend="eager")
        else:
            net.compile(backend="eager")
        with torch.no_grad():
            model(images)
        truth = true_gradient(Staged(), images)
        check(model, images, truth)
        with torch.no_grad():
            model(images)

    def test_compiled_submodule_given_as_module(self, images):
        net = Staged()
        net.layer = torch.compile(net.layer, backend="eager")
        check(net, images, true_gradient(Staged(), images), layer=net.layer)

    def test_data_parallel_on_cpu(self, images):
        check(nn.DataParallel(Staged()), images)

    def test_wrappers_in_wrappers(self, images):
        model = nn.DataParallel(torch.compile(Staged(), backend="eager"))
        assert type(unwrap(model)) is Staged
        check(model, images)

    @pytest.mark.parametrize("name", ["layer", "module.layer", "module._orig_mod.layer"])
    def test_names_through_wrappers(self, name):
        model = nn.DataParallel(torch.compile(Staged(), backend="eager"))
        found, module = find_module(model, name)
        assert found == "layer"
        assert module is unwrap(model).layer


class TestContainers:
    @pytest.mark.parametrize("kind", PACKINGS)
    def test_first_tensor_of_a_container(self, images, kind):
        net = Packed(*PACKINGS[kind])
        check(net, images)
        plain = net(images)
        with replace_output(net, "layer", torch.zeros_like) as run:
            assert_close(run(images), net.head(torch.zeros_like(net.features(images))))
        assert_close(net(images), plain)

    def test_container_of_the_model_is_not_written_to(self, images):
        kept = {}

        def pack(features):
            kept.update(features=features)
            return kept

        net = Packed(pack, lambda output: output["features"].clone())
        with replace_output(net, "layer", torch.zeros_like) as run:
            run(images)
        assert_close(kept["features"], net.features(images), check_layout=False)
        assert kept["features"].abs().max() > 0

    @pytest.mark.parametrize("pack", [lambda t: None, lambda t: (t > 0, 3), lambda t: {}])
    def test_output_without_a_tensor_is_refused(self, images, pack):
        net = Packed(pack, lambda output: torch.ones(2, 4, 8, 8))
        with pytest.raises(LayerError, match="'layer' holds no floating-point tensor"):
            captured(net, images)
        with (
            replace_output(net, "layer", torch.zeros_like) as run,
            pytest.raises(LayerError, match="holds no floating-point tensor"),
        ):
            run(images)


class TestCalls:
    def test_layer_called_twice_gives_its_last_call_and_warns(self, images):
        net = Twice()
        with pytest.warns(XcamWarning, match="'layer' is called 2 times"):
            check(net, images)

    def test_layer_called_twice_is_noted_by_the_verb(self, images):
        with run_settings() as run:
            captured(Twice(), images)
            captured(Twice(), images)
            assert (run.repeated_layers["layer"].times, run.notes) == (2, [])
            note_repeated_layers("layer")
            assert run.notes == []
            note_repeated_layers(None)
            note_repeated_layers("another")
        assert len(run.notes) == 1
        assert "'layer' is called 2 times" in run.notes[0]

    @pytest.mark.parametrize(
        "reader", [capture, lambda m, n: replace_output(m, n, torch.zeros_like)]
    )
    def test_layer_that_is_not_called_is_refused(self, images, reader):
        class Attending(Staged):
            def __init__(self):
                super().__init__()
                self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

            def features(self, images):
                tokens = super().features(images).flatten(2).transpose(1, 2)
                mixed = self.attention(tokens, tokens, tokens)[0]
                return mixed.transpose(1, 2).unflatten(2, (8, 8))

        net = Attending().eval()
        with (
            unchanged(net, images),
            reader(net, "attention.out_proj") as run,
            pytest.raises(
                LayerError,
                match=r"'attention.out_proj' was not called as a module.*layer around it",
            ),
        ):
            run(images)
        with capture(net, "attention") as tap:
            assert_close(tap(images), net(images), check_layout=False)

    def test_layer_with_two_names_is_found_by_both(self, images):
        net = Aliased()
        check(net, images, layer="second_name")
        assert find_module(net, "second_name") == ("second_name", net.layer)
        assert find_module(net, net.layer)[0] == "layer"

    def test_nested_captures_do_not_mix(self, images):
        net = Staged()
        others = pictures(3, seed=1)
        with capture(net, "layer") as outer:
            score = outer(images)[:, TARGET]
            with capture(net, "tail.1") as inner:
                inner_gradient = inner.gradient(inner(others)[:, TARGET])
            outer_gradient = outer.gradient(score)
            assert_close(outer.activation, true_gradient(net, images)[0])
        assert_close(outer_gradient, true_gradient(net, images)[1])
        assert_close(inner_gradient, captured(net, others, "tail.1")[1])

    def test_same_layer_captured_twice(self, images):
        net = Staged()
        with capture(net, "layer") as first, capture(net, "layer") as second:
            score = first(images)[:, TARGET]
            second(pictures(3, seed=1))
            assert_close(first.gradient(score), true_gradient(net, images)[1])

    def test_user_hooks_still_run(self, images):
        net, seen = Staged(), []
        net.layer.register_forward_hook(lambda module, inputs, output: output * 2)
        net.layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
        net.tail.register_forward_pre_hook(lambda module, inputs: inputs[0] + 1)
        check(net, images)
        seen.clear()
        images.requires_grad_()
        with unchanged(net, images):
            captured(net, images)
        assert len(seen) == 1
        assert not seen[0].requires_grad

    def test_user_backward_hooks_on_the_layer(self, images):
        net, calls = Staged(), []
        net.tail[3].register_full_backward_hook(lambda module, grads, outputs: calls.append(1))
        check(net, images)
        assert calls


class TestTraces:
    def test_exception_in_the_tail(self, images):
        net = mixed(Failing())
        net.error = ValueError("tail")
        with unchanged(net, images), pytest.raises(ValueError, match="tail"):
            captured(net, images)
        net.error = None
        check(net.eval(), images)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_interrupt(self, images, error):
        net = mixed(Failing())
        net.error = error()
        with unchanged(net, images), pytest.raises(error):
            captured(net, images)
        with (
            unchanged(net, images),
            pytest.raises(error),
            replace_output(net, "layer", torch.zeros_like) as run,
        ):
            run(images)

    def test_changed_layer_that_raises(self, images):
        def change(features):
            raise ValueError("change")

        net = mixed(Staged())
        with (
            unchanged(net, images),
            pytest.raises(ValueError, match="change"),
            replace_output(net, "layer", change) as run,
        ):
            run(images)

    def test_deepcopy_while_captured(self, images):
        net = Staged()
        with capture(net, "layer") as tap:
            tap(images)
            twin = copy.deepcopy(net)
            score = tap(images)[:, TARGET]
            twin(pictures(seed=3))  # the copy's forward is not the capture's
            assert_close(tap.gradient(score), true_gradient(net, images)[1])
        twin.requires_grad_()
        inputs = images.clone().requires_grad_()
        (through,) = torch.autograd.grad(twin(inputs).sum(), inputs)
        assert through.abs().max() > 0  # its graph is not cut
        check(twin, images, true_gradient(net, images))

    def test_no_tensor_outlives_the_block(self, images):
        net = Staged()
        with capture(net, "layer") as tap:
            tap.gradient(tap(images)[:, TARGET])
            alive = weakref.ref(tap.activation)
        del tap
        gc.collect()
        assert alive() is None

    def test_step_of_training_around_it(self, images):
        """A graph that the caller has made before is differentiated after."""
        grads = []
        for explaining in (False, True):
            net = Staged().train()
            loss = net(images).square().sum()
            if explaining:
                captured(net, images)
            loss.backward()
            grads.append([parameter.grad for parameter in net.parameters()])
        for plain, interrupted in zip(*grads, strict=True):
            assert_close(interrupted, plain)


class TestReplaceOutput:
    def test_runs_the_tail_on_what_it_is_given(self, images):
        net = mixed(Staged())
        with unchanged(net, images), replace_output(net, "layer", lambda a: a * 0.5) as run:
            output = run(images)
        assert not output.requires_grad
        net.eval()
        assert_close(output, net.head(net.features(images) * 0.5))

    def test_compiled(self, images):
        net = Staged().requires_grad_(False)
        net.compile(backend="eager")
        with torch.no_grad():  # in the layout that it will be fed in: nothing to compile again
            net(images.contiguous(memory_format=torch.channels_last))
        with replace_output(net, "layer", torch.zeros_like) as run:
            assert_close(run(images), Staged().head(torch.zeros(2, 4, 8, 8)))


class TestFindModule:
    def test_module_list_of_one(self):
        net = Staged()
        assert find_module(net, ["tail.1"]) == find_module(net, (net.tail[1],))

    @pytest.mark.parametrize(
        ("layer", "error", "words"),
        [
            ("layr", UnknownNameError, "no layer 'layr'; the nearest are layer"),
            ("conv_99", UnknownNameError, "no layer 'conv_99'; the nearest are"),
            ("", UnknownNameError, "no layer ''"),
            ("fc.weight", UnknownNameError, "no layer 'fc.weight'"),
            (3, TypeError, "a name or a module of the model, got 3"),
            ([], LayerError, "one layer a call, got 0"),
            (["stem", "layer"], LayerError, "one layer a call, got 2"),
            (nn.ReLU(), LayerError, "the ReLU given as layer is not part of the model"),
        ],
    )
    def test_refused(self, layer, error, words):
        with pytest.raises(error, match=words) as caught:
            find_module(Staged(), layer)
        assert "\n" not in str(caught.value)

    def test_whole_model(self):
        net = Staged()
        with pytest.raises(LayerError, match=r"the whole model \(Staged\); choose a module inside"):
            find_module(net, net)
        with pytest.raises(LayerError, match="the whole model"):
            find_module(nn.DataParallel(net), "module")

    def test_model_without_layers(self):
        with pytest.raises(UnknownNameError, match="it has no layers with names"):
            find_module(nn.Flatten(), "layer4")
