"""Scripted, traced, frozen, exported, symbolically traced and quantized nets, by every method.

What cannot be had is said in one sentence; what can is that of the net that they were made from.
"""

import contextlib
import functools
import warnings

import pytest
import torch
from nets import pictures, unchanged
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.core import TrainableMethod
from xcam.errors import LayerError, ModelOutputError
from xcam.models import Normalized
from xcam.models.toy import GapNet
from xcam.testing import quick

pytestmark = pytest.mark.filterwarnings("ignore")  # torch calls all of these deprecated

IMAGES = pictures(2, size=16)
SETTINGS = {
    "rise": {"n_masks": 5},
    "integrated_gradients": {"n_steps": 3},
    "smoothgrad": {"n_samples": 2},
    "smoothgrad_squared": {"n_samples": 2},
    "vargrad": {"n_samples": 2},
    "opticam": {"iterations": 2},
}
METHODS = [
    name
    for name in xcam.list_methods()
    if not issubclass(xcam.get_method(name), TrainableMethod) and not xcam.get_method(name).spec.net
]
LAYERED = [name for name in METHODS if hasattr(xcam.get_method(name)(), "layer")]
GUIDED = ["guided_backprop", "deconvnet"]
WRAPPERS = [  # run a CAM
    name for name in METHODS if getattr(xcam.get_method(name)(), "base", None) in LAYERED
]
# Run a copy whose activations are seen; read the gradients at all layers.
RULED = ["deeplift", "deeplift_shap", "lrp", "fullgrad"]
CONTROLS = ["random", "sobel", "center_gaussian"]


def export(net, images, **options):
    return torch.export.export(net, (images,), **options).module()


def export_for_any_number(net):
    return export(net, IMAGES, dynamic_shapes=({0: torch.export.Dim("b", min=1, max=4096)},))


OPAQUE = {
    "scripted": torch.jit.script,
    "traced": lambda net: torch.jit.trace(net, IMAGES),
    "frozen": lambda net: torch.jit.freeze(torch.jit.script(net)),
    "exported": export_for_any_number,
    "exported for one image": lambda net: export(net, IMAGES[:1]),
    "exported for three images": lambda net: export(net, pictures(3, size=16)),
    "inside": lambda net: Normalized(torch.jit.script(net), [0], [1]),
    "exported inside": lambda net: Normalized(export(net, IMAGES[:1]), [0], [1]),
}


@functools.cache
def build(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return OPAQUE[name](GapNet().eval())


def explain(net, method, images=IMAGES, **settings):
    made = xcam.get_method(method)(**SETTINGS.get(method, {}), **settings)
    return xcam.explain(net, images, 1, quick(made))


def leave(net):
    """Hold that the block leaves the net as it was; a frozen one has nothing to change."""
    return unchanged(net, IMAGES) if hasattr(net, "training") else contextlib.nullcontext()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", OPAQUE)
def test_every_method_gives_the_map_of_the_plain_net_or_one_sentence(name, method):
    net = build(name)
    kind = "exported" if "exported" in name else "scripted or traced"
    if method in LAYERED or method in ("guided_gradcam", *RULED, *WRAPPERS):
        error, sentence = LayerError, f"is {kind} .*and its layers cannot be read; .*'rise'$"
    elif method in GUIDED:
        error, sentence = TypeError, f"the ReLUs of {kind} modules cannot be guided, .* is {kind}"
    else:
        expected = explain(GapNet(), method)
        with leave(net):
            got = explain(net, method)
        assert_close(got.raw, expected.raw, rtol=1e-4, atol=1e-6)
        assert_close(got.logits, expected.logits)
        return
    with leave(net), pytest.raises(error, match=sentence) as caught:
        explain(net, method)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layer", ["features", "features.2", "fc"])
@pytest.mark.parametrize("name", OPAQUE)
def test_named_layers_are_refused(name, layer):
    inside = "inside" in name
    which = "'model'" if inside else "the model"
    with pytest.raises(LayerError, match=f"^{which} is .*, and its layers cannot be read; explain"):
        explain(build(name), "eigencam", layer=f"model.{layer}" if inside else layer)


@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("name", ["exported for one image", "exported for three images"])
def test_net_exported_for_a_number_of_images_explains_any(name, count):
    images = pictures(4, size=16)[:count]
    for method in ("rise", "saliency", "integrated_gradients"):
        got, expected = explain(build(name), method, images), explain(GapNet(), method, images)
        assert_close(got.raw, expected.raw, rtol=1e-4, atol=1e-6)
    metric = xcam.get_metric("insertion")(step=0.25)
    scored = metric(build(name), images, expected)
    assert_close(scored, metric(GapNet(), images, expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_net_exported_for_two_to_three_images_explains_any_number(count):
    batch = torch.export.Dim("b", min=2, max=3)
    net = export(GapNet(), pictures(3, size=16), dynamic_shapes=({0: batch},))
    images = pictures(4, size=16)[:count]
    got, expected = explain(net, "rise", images), explain(GapNet(), "rise", images)
    assert_close(got.raw, expected.raw, rtol=1e-4, atol=1e-6)


def test_net_exported_with_a_dict_of_outputs_explains_any_number_of_images():
    class Several(GapNet):
        def forward(self, images):
            return {"means": self.features(images).mean((2, 3)), "logits": super().forward(images)}

    got = explain(export(Several(), IMAGES[:1]), "rise")
    assert_close(got.raw, explain(GapNet(), "rise").raw)
    assert_close(got.logits, GapNet()(IMAGES).detach())


def test_net_exported_for_another_size_fails_in_one_sentence():
    net = export(GapNet(), pictures(2, size=8))
    with pytest.raises(ValueError, match=r"^the model fails on images of shape \(2, 3, 16, 16\)"):
        explain(net, "rise")


@pytest.mark.parametrize("method", METHODS)
def test_symbolically_traced_net_is_like_any_other(method):
    # Its stages are modules that are called, and a traced net calls no containers.
    settings = {"layers": ("features.1", "features.3")} if method == "refinecam" else {}
    expected = explain(GapNet(), method, **settings)
    got = explain(torch.fx.symbolic_trace(GapNet()), method, **settings)
    assert_close(got.raw, expected.raw)


def test_scripted_part_of_a_net_is_skipped():
    net = nn.Sequential(GapNet().features, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    expected = xcam.explain(net, IMAGES, 1)
    net[1] = torch.jit.script(net[1])
    got = xcam.explain(net, IMAGES, 1)
    assert got.method == expected.method
    assert_close(got.maps, expected.maps)


def test_scripted_stem_leaves_the_layers_behind_it():
    gap = GapNet()
    net = nn.Sequential(*gap.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), gap.fc).eval()
    expected = xcam.explain(net, IMAGES, 1, layer="3")
    net[0] = torch.jit.script(net[0])
    for layer in (None, "3"):
        assert_close(xcam.explain(net, IMAGES, 1, layer=layer).raw, expected.raw)
    with pytest.raises(LayerError, match=r"^'0' is scripted or traced .*its layers cannot be read"):
        xcam.explain(net, IMAGES, 1, layer="0")


class Quantizable(GapNet):
    """A net whose input and output torch quantizes statically."""

    def __init__(self):
        super().__init__()
        self.quant = torch.ao.quantization.QuantStub()
        self.dequant = torch.ao.quantization.DeQuantStub()

    def forward(self, images):
        means = self.features(self.quant(images)).mean((2, 3))
        return self.dequant(self.fc(means))


@functools.cache
def quantize_dynamically():
    return torch.ao.quantization.quantize_dynamic(GapNet(), {nn.Linear}, dtype=torch.qint8)


@functools.cache
def quantize_statically():
    net = Quantizable().eval()
    engine = torch.backends.quantized.engine
    net.qconfig = torch.ao.quantization.get_default_qconfig(engine)
    prepared = torch.ao.quantization.prepare(net)
    prepared(IMAGES)
    return torch.ao.quantization.convert(prepared)


@pytest.mark.parametrize("make", [quantize_dynamically, quantize_statically])
@pytest.mark.parametrize("method", METHODS)
def test_quantized_nets_are_explained_or_refused_in_one_sentence(make, method):
    net = make()
    needs_gradient = method in [*GUIDED, "saliency", "input_x_gradient", "vargrad"]
    needs_gradient |= method.startswith(("smoothgrad", "integrated"))
    if needs_gradient:
        with pytest.raises(ModelOutputError, match=r"quantized layers.* such as 'rise'$"):
            explain(net, method)
    elif method == "rise" or method in CONTROLS:
        got = explain(net, method)
        assert_close(got.logits, net(IMAGES))
        expected = explain(GapNet(), method).raw  # to the precision of eight bits
        assert_close(got.raw, expected, atol=0.05 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("make", [quantize_dynamically, quantize_statically])
def test_quantized_layers_are_refused_where_no_layer_gives_a_map_in_floating_point(make):
    net = (
        quantize_statically()
        if make is quantize_statically
        else nn.Sequential(
            nn.Flatten(), *torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(768, 5)))
        )
    )
    with pytest.raises(LayerError, match=r" of the model is quantized .*; explain the model that"):
        xcam.explain(net, IMAGES, 1)
    assert explain(net, "rise").raw.isfinite().all()


class Patches(nn.Module):
    """A convolution that makes one cell of 16 pixels, and a mean of them."""

    def __init__(self):
        super().__init__()
        self.patches, self.fc = nn.Conv2d(3, 6, 16, 16), nn.Linear(6, 5)

    def forward(self, images):
        return self.fc(self.patches(images).mean((2, 3)))


def test_larger_images_are_advised_where_they_help():
    with pytest.raises(
        LayerError, match=r"use larger images, such as 32x48, or a method that"
    ) as e:
        xcam.explain(Patches(), pictures(2, size=16)[:, :, :, :].repeat(1, 1, 1, 2)[..., :24], 1)
    assert "'rise'" in str(e.value)
    assert xcam.explain(Patches(), torch.rand(2, 3, 32, 48), 1).raw.shape == (2, 2, 3)


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(768, 5)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 5, 1), nn.Flatten()),
    ],
)
def test_larger_images_are_not_advised_where_they_do_not_help(net):
    with pytest.raises(LayerError, match=r"; use a method that reads no layer, such as 'rise'$"):
        xcam.explain(net.eval(), IMAGES, 1)
    assert explain(net, "rise").raw.isfinite().all()


def test_guided_backpropagation_without_a_gradient_is_refused_behind_a_detached_head():
    class Detached(GapNet):
        def forward(self, images):
            features = self.features(images)
            return self.fc(features.mean((2, 3)).detach()) + 0 * features.detach().sum()

    for method in (*GUIDED, "saliency"):
        with pytest.raises(ModelOutputError, match="the score has no gradient at the images"):
            explain(Detached(), method)


def export_stem(count):
    """Make a net whose stem was exported for a number of images, and the net without that."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    rest = nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    return nn.Sequential(export(stem, IMAGES[:1].repeat(count, 1, 1, 1)), *rest), nn.Sequential(
        stem, *rest
    ).eval()


@pytest.mark.parametrize("method", ["gradcam", "scorecam"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_layers_behind_an_exported_part_are_found_and_read(count, method):
    (net, plain), images = export_stem(count), pictures(count, size=16)
    got, expected = explain(net, method, images), explain(plain, method, images)
    assert got.method.layer == expected.method.layer == "2"
    assert_close(got.raw, expected.raw)
    with pytest.raises(LayerError, match=rf"exported for {count} images?, .* such as 'rise'$"):
        explain(net, method, pictures(4, size=16))
    assert_close(explain(net, "rise", images).raw, explain(plain, "rise", images).raw)


@pytest.mark.parametrize("method", ["gradcam", "cam", "layercam"])
def test_remedy_of_a_quantized_head_is_one_that_applies(method):
    net = quantize_dynamically()
    with pytest.raises(
        LayerError, match=r"\); use a method without gradients, such as 'eigencam'$"
    ):
        explain(net, method)
    for remedy in ("eigencam", "scorecam", "ablationcam", "conv_output"):
        maps = explain(net, remedy).raw.flatten(), explain(GapNet(), remedy).raw.flatten()
        assert torch.corrcoef(torch.stack(maps))[0, 1] > 0.99


def test_remedy_of_a_quantized_layer_is_one_that_applies():
    with pytest.raises(LayerError, match=r"quantized\); use a method that reads no layer, such as"):
        explain(quantize_statically(), "eigencam", layer="features")
