"""SmoothGrad, SmoothGrad-Squared and VarGrad over any other method."""

import pytest
import torch
from nets import Counting, pictures
from trained import Pointwise, fitted

import xcam
from xcam.errors import NotFittedError, UnknownNameError
from xcam.methods import (
    ConvOutput,
    GradCAM,
    GuidedBackprop,
    IntegratedGradients,
    LayerCAM,
    Saliency,
    SmoothGrad,
    SmoothGradSquared,
    VarGrad,
)
from xcam.methods.gradient.noisy_copies import draw_noise
from xcam.models.toy import GapNet, SmallCNN
from xcam.testing import method_checks

IMAGES = pictures(3, size=12) * torch.tensor([1.0, 0.5, 2]).view(3, 1, 1, 1)
CLASSES = [3, 0, 1]
KINDS = [SmoothGrad, SmoothGradSquared, VarGrad]


def copies(count, noise=0.15):
    ranges = (IMAGES.amax((1, 2, 3)) - IMAGES.amin((1, 2, 3)))[:, None, None, None]
    return [IMAGES + noise * ranges * draw_noise(IMAGES.shape[1:], 0, k) for k in range(count)]


def close(found, expected, limit=1e-5):
    return float((found - expected).abs().max()) <= limit * float(expected.abs().max())


@pytest.mark.parametrize(
    ("kind", "combine"),
    [
        (SmoothGrad, lambda maps: maps.mean(0)),
        (SmoothGradSquared, lambda maps: maps.square().mean(0)),
        (VarGrad, lambda maps: maps.var(0, correction=0)),
    ],
)
@pytest.mark.parametrize(
    "base",
    ["guided_backprop", "Grad-CAM", ("gradcam", {"layer": "features.0"}), LayerCAM(relu=True)],
    ids=["name", "alias", "pair", "object"],
)
def test_maps_of_the_base_are_combined(kind, combine, base):
    net = GapNet(3)
    found = xcam.explain(net, IMAGES, CLASSES, kind(n_samples=4, base=base)).raw
    name, settings = base if isinstance(base, tuple) else (base, {})
    maps = [xcam.explain(net, noisy, CLASSES, name, **settings).raw for noisy in copies(4)]
    assert close(found, combine(torch.stack(maps)), 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_saliency_as_base_is_the_plain_gradient(kind):
    plain = xcam.explain(SmallCNN(), IMAGES, CLASSES, kind(n_samples=3)).raw
    assert torch.equal(
        xcam.explain(SmallCNN(), IMAGES, CLASSES, kind(3, base="saliency")).raw, plain
    )


def test_method_of_an_explanation_holds_the_base_with_its_layer():
    net, settings = GapNet(3), {"base": "gradcam", "n_samples": 2}
    method = xcam.explain(net, IMAGES, method="smoothgrad", **settings).method
    assert method.base == GradCAM(layer=xcam.models.default_layer(net, IMAGES))
    assert method == SmoothGrad(n_samples=2, base=method.base)


def test_class_of_the_clean_image_is_explained():
    net = SmallCNN()
    loud = SmoothGrad(n_samples=3, noise=3.0, base="gradcam")
    predicted = net(IMAGES).argmax(1)
    assert any((net(noisy).argmax(1) != predicted).any() for noisy in copies(3, 3.0))
    found = xcam.explain(net, IMAGES, None, loud)
    assert torch.equal(found.target, predicted)
    assert torch.equal(found.raw, xcam.explain(net, IMAGES, predicted, loud).raw)


def test_callable_target_sees_the_numbers_of_the_images():
    def own_class(output, rows):
        return output[torch.arange(len(rows)), torch.tensor(CLASSES)[rows]]

    method = SmoothGrad(n_samples=3, base="gradcam")
    found = xcam.explain(SmallCNN(), IMAGES, own_class, method, batch_size=2).raw
    assert close(found, xcam.explain(SmallCNN(), IMAGES, CLASSES, method).raw)


@pytest.mark.parametrize(
    ("base", "passes"), [("saliency", 1), ("gradcam", 1), ("guided_gradcam", 2), ("sobel", 0)]
)
def test_passes_are_those_of_the_base_for_each_copy(base, passes):
    net = Counting(GapNet(3))
    method = SmoothGrad(n_samples=5, base=base)
    layer = xcam.explain(net, IMAGES, CLASSES, method)  # finds the layer
    net.sizes.clear()
    assert xcam.explain(net, IMAGES, CLASSES, layer.method, batch_size=2).method == layer.method
    assert sum(net.sizes) == 3 * (1 + 5 * passes)
    assert max(net.sizes) <= 2


def test_other_methods_of_a_call_still_share_their_passes():
    net = Counting(SmallCNN())
    xcam.explain(net, IMAGES, CLASSES, "gradcam")  # finds the layer
    net.sizes.clear()
    methods = ["gradcam", SmoothGrad(n_samples=2, base="gradcam"), "layercam"]
    xcam.explain(net, IMAGES, CLASSES, methods)
    assert sum(net.sizes) == 3 * (1 + (1 + 2))


def test_spec_tells_what_the_base_tells():
    spec = SmoothGrad(base=ConvOutput()).spec
    assert (spec.name, spec.title) == ("smoothgrad", "SmoothGrad of Convolution output")
    assert not spec.class_specific
    assert "n_samples × (1 forward)" in spec.cost
    assert SmoothGrad.spec.class_specific
    assert not VarGrad(base=GuidedBackprop()).spec.signed


def test_contract():
    """With a base that has a layer and no class."""
    for check in method_checks(SmoothGrad(n_samples=2, base=ConvOutput())):
        check()


def test_file_and_pickle_keep_the_base(tmp_path):
    base = ("integrated_gradients", {"n_steps": 2, "baseline": torch.tensor(0.5)})
    written = xcam.explain(SmallCNN(), IMAGES, CLASSES, VarGrad(n_samples=2, base=base))
    written.save(tmp_path / "maps.safetensors")
    read = xcam.load(tmp_path / "maps.safetensors")
    assert isinstance(read.method.base, IntegratedGradients)
    assert repr(read.method) == repr(written.method)
    assert not read.method.spec.signed


def test_trainable_base_explains_the_net_that_carries_it():
    net = fitted(Pointwise(), SmallCNN())
    base = Pointwise(gain=2.0)
    found = xcam.explain(net, IMAGES, CLASSES, SmoothGrad(n_samples=2, base=base)).raw
    assert close(found, sum(xcam.explain(net, noisy, CLASSES, base).raw for noisy in copies(2)) / 2)
    with pytest.raises(NotFittedError, match="pointwise needs a model with its head"):
        xcam.explain(SmallCNN(), IMAGES, CLASSES, SmoothGrad(n_samples=2, base=base))


def test_selectivity_explains_again_by_the_ensemble():
    found = xcam.explain(SmallCNN(), IMAGES, CLASSES, SmoothGrad(n_samples=2, base="gradcam"))
    metric = xcam.metrics.Selectivity(recompute=True, steps=2)
    assert metric.score(SmallCNN(), IMAGES, found).shape == (3, 3, 2)


def test_preset_is_left_out_of_a_base_that_has_none():
    found = xcam.explain(
        SmallCNN(), IMAGES, CLASSES, "smoothgrad", preset="whitebox", base="layercam"
    )
    assert found.method.base == LayerCAM(layer=found.method.base.layer)
    assert found.method.spread == "whitebox"
    assert SmoothGrad(preset="whitebox", base="gradcam").base == ("gradcam", {"preset": "whitebox"})


def test_unknown_base_is_told_with_near_names():
    with pytest.raises(UnknownNameError, match=r"no method 'gradcan': did you mean gradcam"):
        xcam.explain(SmallCNN(), IMAGES, method="smoothgrad", base="gradcan")
    with pytest.raises(TypeError, match="gradcam has no parameter 'lair': did you mean layer"):
        xcam.explain(SmallCNN(), IMAGES, method="vargrad", base=("gradcam", {"lair": "fc"}))


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"base": 3}, TypeError, r"smoothgrad: base must be a method, its name, or .*, got 3"),
        ({"base": ("gradcam", 1)}, TypeError, "base must be a method"),
        ({"base": SmoothGrad()}, ValueError, "the base is smoothgrad, which averages over noisy"),
        ({"base": Saliency(), "output": "prob"}, ValueError, r"base=\('saliency', {'output': 'p"),
        ({"spread": "wide"}, ValueError, "spread must be 'range' or 'whitebox', got 'wide'"),
    ],
)
def test_values_that_cannot_be_run(settings, error, sentence):
    with pytest.raises(error, match=sentence):
        SmoothGrad(**settings)


def test_named_ensemble_as_base_is_refused():
    with pytest.raises(ValueError, match="the base is vargrad, which averages over noisy copies"):
        xcam.explain(SmallCNN(), IMAGES, method="smoothgrad", base="vargrad")


def test_base_that_is_only_named_needs_explain():
    with pytest.raises(TypeError, match="base 'gradcam' is only named: give a method object"):
        SmoothGrad(base="gradcam").maps(SmallCNN(), IMAGES, xcam.Target.of(CLASSES, IMAGES))
