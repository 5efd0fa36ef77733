"""The verb `explain`: what it returns, and how it runs any method."""

import sys
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from nets import (
    Counting,
    Pooled,
    SharedReLU,
    Staged,
    Twice,
    Untidy,
    Viewing,
    mixed,
    pictures,
    true_gradient,
    unchanged,
)
from torch import nn
from torch.testing import assert_close

import xcam
from xcam import Method, MethodSpec, TrainableMethod
from xcam._explain.prepared import prepare
from xcam.core.method import Reduce
from xcam.engine import restore
from xcam.engine.forward import RunSettings, current_runtime
from xcam.errors import ModelOutputError, UnknownNameError, XcamWarning
from xcam.methods import GradCAM
from xcam.models.toy import GapNet
from xcam.testing import quick
from xcam.testing.method_subject import prepare_net

IMAGES = pictures(5, size=16)
METHODS = xcam.list_methods()
# Rows of one image that are never parted: with its baselines, or two points of a path.
TOGETHER = {"deeplift": 2, "deeplift_shap": 2, "layer_conductance": 2, "internal_influence": 2}


def made(name):
    return quick(xcam.get_method(name)())


class TestResult:
    def test_maps_logits_and_target_of_gradcam(self):
        net, images = Staged(), pictures()
        got = xcam.explain(net, images, 1, layer="layer")
        features, gradient = true_gradient(net, images)
        assert_close(got.raw, (features * gradient.mean((2, 3), keepdim=True)).sum(1))
        assert_close(got.maps, got.raw)  # the layer is as large as the images
        assert_close(got.logits, net(images))
        assert got.target.tolist() == [1, 1]
        assert got.method == GradCAM("layer")
        shown = "GradCAM(layer='layer', output='logit', relu=False, rendering=None)"
        assert repr(got.method) == shown
        assert got.warnings == ()

    def test_predicted_class_by_default(self):
        got = xcam.explain(Pooled(), IMAGES)
        assert torch.equal(got.target, Pooled()(IMAGES).argmax(1))

    def test_maps_are_of_the_images_size(self):
        got = xcam.explain(GapNet(), pictures(2, size=16)[..., :12])
        assert got.raw.shape == (2, 8, 6)
        assert got.maps.shape == (2, 16, 12)
        assert_close(got.maps, xcam.imaging.resize(got.raw, (16, 12)))

    def test_method_objects_and_parameters(self):
        net = GapNet()
        by_name = xcam.explain(net, IMAGES, 1, "gradcam", output="prob", relu=True)
        by_object = xcam.explain(net, IMAGES, 1, GradCAM(output="prob"), relu=True)
        assert by_name.method == by_object.method
        assert torch.equal(by_name.maps, by_object.maps)

    def test_returned_target_and_method_reproduce_the_maps(self):
        net = GapNet()
        first = xcam.explain(net, IMAGES, method="gradcam_plusplus")
        again = xcam.explain(net, IMAGES, first.target, first.method)
        assert torch.equal(first.maps, again.maps)

    def test_given_method_object_is_not_changed(self):
        method = GradCAM()
        xcam.explain(GapNet(), IMAGES, method=method)
        assert method.layer is None


@pytest.mark.parametrize(
    ("method", "field"), [("gradcam", "output"), ("saliency", "reduce"), ("rise", "output")]
)
def test_unknown_choice_is_refused_before_any_pass(method, field):
    net = Counting(GapNet())
    with pytest.raises(ValueError, match=f"^{method}: {field} must be '.*' or '.*', got 'most'$"):
        xcam.explain(net, IMAGES, method=method, **{field: "most"})
    assert not net.sizes


def test_gradcam_crosses_few_files():
    """Whoever follows one call reads these files and no others."""
    net, explain, root = GapNet(), xcam.explain, str(Path(xcam.__file__).parent)
    explain(net, IMAGES)  # methods are registered by the first call
    files = set()

    def profile(frame, _event, _argument):
        files.add(frame.f_code.co_filename)

    sys.setprofile(profile)
    try:
        explain(net, IMAGES)
    finally:
        sys.setprofile(None)
    crossed = {file for file in files if file.startswith(root)} - {f"{root}/models/toy.py"}
    assert len(crossed) <= 25, sorted(crossed)


class TestWarnings:
    def test_layer_called_twice_warns_once(self):
        with pytest.warns(XcamWarning, match="'layer' is called 2 times") as caught:
            got = xcam.explain(Twice(), pictures(), layer="layer", batch_size=1)
        assert len(caught) == 1  # once, though there were two chunks
        assert caught[0].filename == __file__
        assert len(got.warnings) == 1
        assert "'layer' is called 2 times" in got.warnings[0]

    def test_shared_default_layer_does_not_warn(self):
        net = SharedReLU()
        got = xcam.explain(net, pictures())
        assert got.method.layer == "relu"
        assert not [note for note in got.warnings if "called" in note]
        with pytest.warns(XcamWarning, match="'relu' is called 2 times"):
            named = xcam.explain(net, pictures(), layer="relu")
        assert torch.equal(got.maps, named.maps)

    def test_flat_maps_are_noted_in_the_result_only(self):
        net = Pooled()
        nn.init.zeros_(net.fc.weight)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            got = xcam.explain(net, IMAGES, batch_size=2)
        assert [note.split(":")[0] for note in got.warnings] == [f"image {i}" for i in range(5)]


class TestModel:
    @pytest.mark.parametrize("net", [Staged, Untidy, Viewing, Pooled])
    def test_model_is_left_as_it_was(self, net):
        net, images = mixed(net()), pictures()
        with unchanged(net, images):
            xcam.explain(net, images)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
    @pytest.mark.parametrize("method", ["gradcam", "rise", "smoothgrad", "ablationcam"])
    def test_model_is_left_as_it_was_after_an_interrupt(self, method, error):
        passes = []

        def interrupt(module, inputs):
            passes.append(1)
            if len(passes) == 2:
                raise error

        net = mixed(Untidy())
        method = prepare(net, IMAGES, made(method)).method
        net.fc.register_forward_pre_hook(interrupt)
        with unchanged(net, IMAGES), pytest.raises(error):
            xcam.explain(net, IMAGES, method=method, batch_size=3)
        assert current_runtime() == RunSettings()

    def test_model_that_normalizes_in_place(self):
        class InPlace(Staged):
            def forward(self, images):
                return super().forward(images.sub_(0.5))

        images = pictures()
        with unchanged(InPlace(), images):
            got = xcam.explain(InPlace(), images, layer="layer")
        assert_close(got.maps, xcam.explain(Staged(), images - 0.5, layer="layer").maps)

    def test_step_of_training_around_it(self):
        grads = []
        for explaining in (False, True):
            net = Staged().train()
            loss = net(pictures()).square().sum()
            if explaining:
                xcam.explain(net, pictures())
            loss.backward()
            grads.append([parameter.grad for parameter in net.parameters()])
        for plain, interrupted in zip(*grads, strict=True):
            assert_close(interrupted, plain)

    def test_error_of_the_model_passes_through(self):
        class Fails(Pooled):
            def forward(self, images):
                raise KeyError("inside")

        with pytest.raises(KeyError, match="inside"):
            xcam.explain(Fails(), IMAGES, layer="features")

    def test_error_of_the_target_is_not_blamed_on_the_images(self):
        def target(output, rows):
            raise RuntimeError("in the target")

        with pytest.raises(RuntimeError, match=r"^in the target$"):
            xcam.explain(Pooled(), IMAGES, target)

    def test_model_can_be_shared_by_threads(self):
        """Threads wait for each other: no hook acts on another's pass, and all is restored."""
        net, results = mixed(Pooled()), {}
        expected = {name: xcam.explain(net, IMAGES, 1, name) for name in ("gradcam", "scorecam")}

        def work(number):
            name = ("gradcam", "scorecam")[number % 2]
            size = number // 2 + 1
            results[number] = (name, xcam.explain(net, IMAGES, 1, name, batch_size=size))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        with unchanged(net, IMAGES):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(results) == 8
        for name, got in results.values():
            assert_close(got.maps, expected[name].maps, atol=1e-6, rtol=1e-4)


class Hungry(nn.Module):
    """A net that has memory for `room` rows only."""

    def __init__(self, net, room):
        super().__init__()
        self.net, self.room = net, room

    def forward(self, images):
        if len(images) > self.room and images.device.type != "meta":
            raise torch.OutOfMemoryError("out of memory")
        return self.net(images)


def placed(name, prefix):
    """Return arguments for the method, with its layer below a wrapper unless a head knows it."""
    method = made(name)
    reads = "layer" in method.parameters() and not isinstance(method, TrainableMethod)
    return {"method": method, **({"layer": f"{prefix}features"} if reads else {})}


def net_for(name, wrapper=None, *args):
    """Return the net that the method runs on, in a wrapper that carries the same head."""
    net = prepare_net(made(name), GapNet())
    wrapped = wrapper(net, *args) if wrapper else net
    if hasattr(net, "method"):
        wrapped.method, wrapped.fitted = net.method, True
    return wrapped


@pytest.mark.parametrize("name", METHODS)
class TestEveryMethod:
    def test_passes_hold_at_most_batch_size_rows(self, name):
        net = net_for(name, Counting)
        for size in (1, 3):
            net.sizes.clear()
            xcam.explain(net, IMAGES, 1, batch_size=size, **placed(name, "net."))
            assert max(net.sizes) <= max(size, TOGETHER.get(name, 1))

    def test_maps_are_the_same_after_memory_ran_out(self, name):
        expected = xcam.explain(net_for(name), IMAGES, [0, 1, 2, 3, 4], **placed(name, "")).maps
        hungry = net_for(name, Hungry, 2)
        with unchanged(hungry, IMAGES):
            got = xcam.explain(hungry, IMAGES, [0, 1, 2, 3, 4], **placed(name, "net.")).maps
        assert_close(got, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)

    def test_single_image_that_does_not_fit_raises(self, name):
        hungry = net_for(name, Hungry, 0)
        with unchanged(hungry, IMAGES), pytest.raises(torch.OutOfMemoryError):
            xcam.explain(hungry, IMAGES, 1, **placed(name, "net."))

    def test_model_is_guarded_once_per_explanation(self, name, monkeypatch):
        net, guards, guard = net_for(name), [], restore._frozen
        monkeypatch.setattr(restore, "_frozen", lambda model: guards.append(1) or guard(model))
        xcam.explain(net, IMAGES, 1, made(name), batch_size=2)  # which also looks for a layer
        assert len(guards) == 1

    def test_progress_only_if_asked(self, name, capfd):
        xcam.explain(net_for(name), IMAGES, 1, **placed(name, ""))
        assert capfd.readouterr() == ("", "")
        xcam.explain(net_for(name), IMAGES, 1, progress=True, **placed(name, ""))
        out, err = capfd.readouterr()
        assert out == ""
        assert name in err


def spec(name):
    return MethodSpec(name, name, "", "control", "none", class_specific=False)


@dataclass(frozen=True)
class Gives(Method):
    """A method that returns `form(images)`."""

    form: object = None
    reduce: Reduce = "sum"
    spec: ClassVar[MethodSpec] = spec("gives")

    def maps(self, model, images, target):
        return self.form(images)


class TestWhatAMethodGives:
    @pytest.mark.parametrize(
        ("form", "got"),
        [
            (lambda x: x[0, 0], r"for 2 images, got \(16, 16\)"),
            (lambda x: x[:1, 0], r"for 2 images, got \(1, 16, 16\)"),
            (lambda x: x.flatten(1), r"got \(2, 768\)"),
            (lambda x: None, "got NoneType"),
        ],
    )
    def test_result_of_a_wrong_shape_is_refused(self, form, got):
        with pytest.raises(ModelOutputError, match=got):
            xcam.explain(Pooled(), IMAGES[:2], method=Gives(form))

    def test_map_that_is_not_finite_is_refused(self):
        def form(images):
            return torch.where(images[:, 0] == IMAGES[3, 0], torch.nan, images[:, 0])

        with pytest.raises(
            ModelOutputError, match="gives gave a map that is not finite for image 3"
        ):
            xcam.explain(Pooled(), IMAGES, method=Gives(form), batch_size=2)

    @pytest.mark.parametrize(
        ("reduce", "function"),
        [
            ("sum", lambda raw: raw.sum(1)),
            ("abs_sum", lambda raw: raw.abs().sum(1)),
            ("abs_max", lambda raw: raw.abs().amax(1)),
        ],
    )
    def test_channels_are_reduced_once(self, reduce, function):
        got = xcam.explain(Pooled(), IMAGES, method=Gives(lambda x: x - 0.5, reduce))
        assert_close(got.raw, IMAGES - 0.5)
        assert_close(got.maps, function(IMAGES - 0.5))

    def test_unknown_reduction_is_refused(self):
        with pytest.raises(ValueError, match="'sum', 'abs_sum' or 'abs_max', got 'mean'"):
            xcam.explain(Pooled(), IMAGES, method=Gives(lambda x: x, "mean"))

    def test_clean_pass_is_made_for_methods_without_one(self):
        net = Counting(Pooled())
        got = xcam.explain(net, IMAGES, method=Gives(lambda x: x[:, 0]), batch_size=2)
        assert net.sizes == [2, 2, 1]
        assert_close(got.logits, Pooled()(IMAGES))
        assert torch.equal(got.target, got.logits.argmax(1))

    def test_raw_maps_are_float32_without_a_graph(self):
        weight = torch.ones((), requires_grad=True)
        got = xcam.explain(Pooled(), IMAGES, method=Gives(lambda x: (x[:, 0] * weight).double()))
        assert got.raw.dtype == torch.float32
        assert not got.raw.requires_grad

    def test_images_come_without_a_graph(self):
        seen = []

        def form(images):
            seen.append(images.requires_grad)
            return images

        xcam.explain(Pooled(), IMAGES.clone().requires_grad_(), method=Gives(form))
        assert seen == [False]

    def test_unregistered_name_is_refused(self):
        with pytest.raises(UnknownNameError, match="no method 'gives'"):
            xcam.explain(Pooled(), IMAGES, method="gives")
