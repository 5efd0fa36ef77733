"""What goes wrong in users' hands: a sentence with the value and the remedy, the model untouched.

Beside what is refused stands what is odd but right, and has to work.
"""

from dataclasses import dataclass
from typing import ClassVar, Optional

import numpy as np
import pytest
import torch
from nets import Pooled, Wrapped, mixed, pictures, unchanged
from torch import nn
from torch.testing import assert_close
from torchvision.models import SwinTransformer

import xcam
from xcam.core import Method, MethodSpec
from xcam.errors import LayerError, ModelOutputError, UnknownNameError
from xcam.methods import GradCAM
from xcam.models.toy import GapNet, TokenNet
from xcam.testing.method_subject import prepare_net

IMAGES = pictures(4)
LAYER = "features.3"


def with_pixel(value):
    images = IMAGES.clone()
    images[2, 1, 4, 4] = value
    return images


REFUSED = {
    # the method and its parameters
    "unknown method": (
        {"method": "gradcan"},
        UnknownNameError,
        "no method 'gradcan': did you mean gradcam",
    ),
    "unknown method in print": (
        {"method": "Grad-CAN"},
        UnknownNameError,
        "no method 'Grad-CAN': did you mean gradcam",
    ),
    "method is a class": ({"method": GradCAM}, TypeError, "a name or a Method object, got <class"),
    "method is a number": ({"method": 3}, TypeError, "a name or a Method object, got 3"),
    "unknown parameter": (
        {"layers": LAYER},
        TypeError,
        r"gradcam has no parameter 'layers': did you mean layer",
    ),
    "unlike any parameter": (
        {"xyz": 1},
        TypeError,
        "no parameter 'xyz': did you mean layer, output",
    ),
    "bad value": (
        {"output": "odds", "layer": LAYER},
        ValueError,
        "output must be 'logit', 'prob' or 'logprob', got 'odds'",
    ),
    "parameter of a method without any": (
        {"method": "sobel", "foo": 1},
        TypeError,
        "^sobel has no parameters, got 'foo'$",
    ),
    # the layer
    "unknown layer": ({"layer": "layer4"}, UnknownNameError, "no layer 'layer4'; the nearest are"),
    "misspelt layer": (
        {"layer": "featurs.3"},
        UnknownNameError,
        r"no layer 'featurs.3'; the nearest are features.3",
    ),
    "layer is the classifier": (
        {"layer": "fc"},
        LayerError,
        r"shape \(4, 10\) is not a map.*choose a layer further from the output",
    ),
    "layer of one cell": (
        {"layer": "avgpool"},
        LayerError,
        r"shape \(4, 8, 1, 1\) is not a map of more than one cell",
    ),
    "two layers, one unknown": (
        {"layer": ["features.0", "layer4"]},
        UnknownNameError,
        "no layer 'layer4'; the nearest are",
    ),
    "base of eigen smoothing": (
        {"method": "eigen_smooth", "base": "rise"},
        ValueError,
        "the base rise adds up no weighted channels of a layer; give a CAM",
    ),
    "base of layer fusion": (
        {"method": "layer_fusion", "base": "sobel"},
        ValueError,
        "the base sobel reads no layer; give one that does",
    ),
    "no factors": (
        {"method": "aug_smooth", "factors": ()},
        ValueError,
        "factors must be at least one number, got none",
    ),
    "base of augmentation": (
        {"method": "aug_smooth", "base": 3},
        TypeError,
        "aug_smooth: base must be a method, its name, or .*, got 3",
    ),
    "no layers": ({"layer": []}, LayerError, "one layer a call, got 0"),
    "layer of another model": (
        {"layer": Pooled().features[3]},
        LayerError,
        "the Conv2d given as layer is not part of the model",
    ),
    "layer is a number": ({"layer": 4}, TypeError, "a name or a module of the model, got 4"),
    # the target
    "class out of range": (
        {"target": 99},
        ValueError,
        "target 99 is out of range: the model has 10 classes, 0 to 9",
    ),
    "one class out of range": ({"target": [0, 1, 10, 2]}, ValueError, "target 10 is out of range"),
    "negative class": ({"target": -1}, ValueError, "target -1 is negative: classes count from 0"),
    "one class for four images": (
        {"target": [3]},
        ValueError,
        r"each of the 4 images, got shape \(1,\); pass a single int",
    ),
    "two for four": ({"target": [3, 3]}, ValueError, r"each of the 4 images, got shape \(2,\)"),
    "one-element tensor": ({"target": torch.tensor([3])}, ValueError, r"got shape \(1,\)"),
    "float": ({"target": 3.0}, TypeError, "must hold integers, got torch.float32: 3.0"),
    "bool": ({"target": True}, TypeError, "must hold integers, got torch.bool: True"),
    "name": (
        {"target": "cat"},
        ValueError,
        "target 'cat' is the name of a class, and the model nam",
    ),
    "callable of the output alone": (
        {"target": lambda output: output[:, 0]},
        TypeError,
        r"takes \(output, rows\), .*got one that takes \(output\)",
    ),
    "callable that is not finite": (
        {"target": lambda output, rows: output[:, 0] / (rows != 2)},
        ModelOutputError,
        "the target callable's score for image 2 is not finite",
    ),
    "callable that returns logits": (
        {"target": lambda output, rows: output},
        ModelOutputError,
        r"tensor of shape \(4,\), a score a row, got \(4, 10\)",
    ),
    # the images
    "NaN": (
        {"images": with_pixel(float("nan"))},
        ValueError,
        "image 2 holds values that are not finite",
    ),
    "infinity": (
        {"images": with_pixel(-float("inf"))},
        ValueError,
        "image 2 holds values that are not finite",
    ),
    "channels": (
        {"images": pictures(4, 4)},
        ValueError,
        r"fails on images of shape \(4, 4, 8, 8\); give it the channels and the size",
    ),
    "channels of a named layer": (
        {"images": pictures(4, 1), "layer": LAYER},
        ValueError,
        r"fails on images of shape \(4, 1, 8, 8\)",
    ),
    "too small": (
        {"images": pictures(4, size=1), "layer": LAYER},
        ValueError,
        r"fails on images of shape \(4, 3, 1, 1\)",
    ),
    "empty": ({"images": IMAGES[:0]}, ValueError, r"at least one image, got shape \(0, 3, 8, 8\)"),
    "no pixels": ({"images": IMAGES[..., :0]}, ValueError, r"got shape \(4, 3, 8, 0\)"),
    "3-D": (
        {"images": IMAGES[0]},
        ValueError,
        r"must be \(B, C, H, W\), got \(3, 8, 8\); add the batch: images\[None\]",
    ),
    "5-D": ({"images": IMAGES[None]}, ValueError, r"must be \(B, C, H, W\), got \(1, 4, 3, 8, 8\)"),
    "uint8": (
        {"images": IMAGES.mul(255).byte()},
        TypeError,
        r"floating point, got torch.uint8; use images.float\(\)",
    ),
    "complex": (
        {"images": IMAGES.to(torch.complex64)},
        TypeError,
        r"real floating point, got torch.complex64; give the magnitude, images.abs\(\)",
    ),
    "int64": ({"images": IMAGES.long()}, TypeError, "floating point, got torch.int64"),
    "float64": (
        {"images": IMAGES.double()},
        TypeError,
        r"torch.float64 and the model takes torch.float32; use images.to\(torch.float32\)",
    ),
    "numpy": (
        {"images": IMAGES.numpy()},
        TypeError,
        "torch tensor.*got ndarray; a file, PIL image or array is taken by a model that says its",
    ),
    "list": (
        {"images": list(IMAGES)},
        TypeError,
        r"torch tensor.*got list of tensors \(3, 8, 8\), .*; use torch.stack\(images\)",
    ),
    "list of sizes": (
        {"images": [IMAGES[0], IMAGES[1, :, :4]]},
        TypeError,
        r"\(3, 4, 8\); resize them to one size and use torch.stack\(images\)",
    ),
    "tuple of batches": (
        {"images": (IMAGES, IMAGES[:, :1])},
        TypeError,
        r"got tuple of tensors \(4, 3, 8, 8\), \(4, 1, 8, 8\); for a model of several inputs, wrap",
    ),
    "empty list": ({"images": []}, TypeError, "got list; a file, PIL image or array is taken by"),
    "device": (
        {"images": IMAGES.to("meta")},
        ValueError,
        r"images are on meta and the model is on cpu; use images.to\('cpu'\)",
    ),
    # the run settings
    "batch size of nothing": (
        {"batch_size": 0},
        ValueError,
        "batch_size must be a positive int or None, got 0",
    ),
    "half a batch": (
        {"batch_size": 1.5},
        ValueError,
        "batch_size must be a positive int or None, got 1.5",
    ),
    "precision": (
        {"precision": "fp8"},
        ValueError,
        "precision must be 'full', 'bf16' or 'fp16', got 'fp8'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_refused(case):
    arguments, error, words = REFUSED[case]
    net = mixed(Pooled())
    arguments = {"images": IMAGES, **arguments}
    tensors = [
        v for v in arguments.values() if isinstance(v, torch.Tensor) and v.device.type == "cpu"
    ]
    with unchanged(net, *tensors), pytest.raises(error, match=words) as caught:
        xcam.explain(net, **arguments)
    assert "\n" not in str(caught.value).strip()
    assert str(caught.value) == str(caught.value).strip()


def test_sparse_images_are_refused():
    with pytest.raises(TypeError, match=r"must be dense, got torch.sparse_coo; use images.to_den"):
        xcam.explain(Pooled(), IMAGES.to_sparse())


@dataclass(frozen=True)
class Plugin(Method):
    strength: Optional[float] = None  # noqa: UP045
    often: "int" = 1

    spec: ClassVar[MethodSpec] = MethodSpec("plugin", "Plugin", "", "control", "1 forward")

    def maps(self, model, images, target):
        return images.sum(1)


@dataclass(frozen=True)
class ForTypeCheckers(Plugin):
    other: "Unknown" = "anything"  # noqa: F821


WRONG_KINDS = [
    ("rise", "n_masks", 2.5, "an int of at least 1, such as 4000"),
    ("rise", "n_masks", "10", "an int of at least 1, such as 4000"),
    ("rise", "cells", 7.5, "an int of at least 2, such as 7"),
    ("random", "seed", 1.5, "an int, such as 0"),
    ("integrated_gradients", "n_steps", "5", "an int of at least 1, such as 50"),
    ("smoothgrad", "n_samples", 2.5, "an int of at least 1, such as 25"),
    ("smoothgrad", "n_samples", True, "an int of at least 1, such as 25"),
    ("smoothgrad", "n_samples", None, "an int of at least 1, such as 25"),
    ("opticam", "rate", "a", "a finite number above 0, such as 0.1"),
    ("layercam", "gamma", "a", "a finite number above 0 or None"),
    ("scorecam", "align_corners", "x", "True or False"),
    ("gradcam", "relu", "yes", "True or False"),
    ("gradcam", "relu", 1, "True or False"),
    (Plugin(), "strength", "a", "a finite number or None"),
    (Plugin(), "often", 2.5, "an int, such as 1"),
]


@pytest.mark.parametrize(("method", "name", "value", "words"), WRONG_KINDS)
def test_parameters_of_the_wrong_kind_are_refused(method, name, value, words):
    title = method if isinstance(method, str) else method.spec.name
    with pytest.raises(TypeError) as caught:
        xcam.explain(Pooled(), IMAGES, method=method, **{name: value})
    assert str(caught.value) == f"{title}: {name} must be {words}, got {value!r}"


def test_method_object_with_a_field_of_the_wrong_type_is_refused():
    with pytest.raises(TypeError, match=r"^gradcam: relu must be True or False, got 'yes'$"):
        xcam.explain(Pooled(), IMAGES, method=GradCAM(relu="yes"))


@pytest.mark.parametrize(
    ("method", "given", "plain"),
    [
        ("smoothgrad", {"n_samples": np.int64(2)}, {"n_samples": 2}),
        ("smoothgrad", {"n_samples": 2, "noise": 1}, {"n_samples": 2, "noise": 1.0}),
        (
            "smoothgrad",
            {"n_samples": 2, "noise": np.float32(0.5)},
            {"n_samples": 2, "noise": 0.5},
        ),
        ("layercam", {"gamma": None}, {}),
        ("layercam", {"gamma": 2}, {"gamma": 2.0}),
        (Plugin(), {"strength": None}, {}),
        (Plugin(), {"strength": 2}, {"strength": 2.0}),
        (ForTypeCheckers(), {"other": 3}, {}),
    ],
)
def test_parameters_of_the_right_kind_are_taken(method, given, plain):
    got = xcam.explain(Pooled(), IMAGES, method=method, **given)
    assert given.items() <= got.method.parameters().items()
    expected = xcam.explain(Pooled(), IMAGES, method=method, **plain)
    assert torch.equal(got.raw, expected.raw)


@pytest.mark.parametrize("method", xcam.list_methods())
@pytest.mark.parametrize("case", ["class out of range", "NaN", "channels"])
def test_bad_images_are_refused_by_every_method(method, case):
    arguments, error, words = REFUSED[case]
    net = mixed(prepare_net(xcam.get_method(method)(), GapNet(num_classes=10)))
    words = words.replace("10 classes, 0 to 9", r"\d+ classes, 0 to \d")  # of a method's own net
    with unchanged(net, IMAGES), pytest.raises(error, match=words):
        xcam.explain(net, **{"images": IMAGES, "method": method, **arguments})


def poisoned(value):
    net = Pooled()
    with torch.no_grad():
        net.fc.bias[3] = value
    return net


class TwoInputs(Pooled):
    """Classifies an image by itself and a second one."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.side = nn.Linear(3, 10)

    def forward(self, images, other):
        return super().forward(images) + self.side(other.mean((2, 3)))


class OneInput(nn.Module):
    """The remedy for a model of two inputs: the second one is fixed."""

    def __init__(self, model, other):
        super().__init__()
        self.model = model
        self.register_buffer("other", other)

    def forward(self, images):
        return self.model(images, self.other.expand(len(images), -1, -1, -1))


class KeywordOnly(Pooled):
    def forward(self, images, *, temperature):
        return super().forward(images) / temperature


class Optional2(Pooled):
    def forward(self, images, temperature=1.0, *more, **options):
        return super().forward(images) / temperature


def on_meta(part):
    net = Pooled()
    net.get_submodule(part).to("meta")
    return net


MODELS = {
    "two inputs": (
        TwoInputs(),
        TypeError,
        r"images alone, and forward of TwoInputs takes \(images, other\); wrap it in a module",
    ),
    "two inputs, wrapped": (
        nn.DataParallel(TwoInputs()),
        TypeError,
        r"forward of TwoInputs takes \(images, other\)",
    ),
    "keyword only": (
        KeywordOnly(),
        TypeError,
        r"forward of KeywordOnly takes \(images, \*, temperature\)",
    ),
    "meta device": (
        on_meta(""),
        ValueError,
        "'features.0.weight' of the model is on the meta device, which holds no values; make",
    ),
    "head on the meta device": (
        on_meta("fc"),
        ValueError,
        "'fc.weight' of the model is on the meta",
    ),
    "buffer on the meta device": (
        on_meta("features.1"),
        ValueError,
        "'features.1.weight' of the model is on the meta",
    ),
    "exported program": (
        torch.export.export(Pooled(), (IMAGES,)),
        TypeError,
        r"must be a torch.nn.Module, got ExportedProgram; give its .module\(\)",
    ),
    "function": (lambda images: images, TypeError, "must be a torch.nn.Module, got function; wrap"),
    "class": (Pooled, TypeError, "must be a torch.nn.Module, got type"),
    "NaN": (
        poisoned(float("nan")),
        ModelOutputError,
        "output for image 0 is not finite: check the weights",
    ),
    "infinity": (poisoned(float("inf")), ModelOutputError, "output for image 0 is not finite"),
    "scores of parts": (
        Wrapped(Pooled(), lambda t: t.reshape(-1, 2, 5)),
        ModelOutputError,
        r"one floating-point \(4, K\) tensor of class scores, got \(4, 2, 5\); pass a callable",
    ),
    "two tensors": (
        Wrapped(Pooled(), lambda t: (t, t)),
        ModelOutputError,
        r"got \(4, 10\), \(4, 10\)",
    ),
    "nothing": (Wrapped(Pooled(), lambda t: None), ModelOutputError, "got NoneType"),
    "labels": (
        Wrapped(Pooled(), lambda t: t.argmax(1, keepdim=True)),
        ModelOutputError,
        r"got \(4, 1\)",
    ),
    "detached": (
        Wrapped(Pooled(), torch.Tensor.detach),
        LayerError,
        "the model cuts the graph after it",
    ),
    "lazy": (
        nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(5)),
        ValueError,
        "'0.weight' of the model has no shape yet; run the model once first",
    ),
    "lazy buffer": (nn.Sequential(nn.LazyBatchNorm2d()), ValueError, "has no shape yet"),
    "no map": (
        nn.Sequential(nn.Flatten(), nn.Linear(192, 5)),
        LayerError,
        r"no layer of Sequential gives a map .* for images of shape \(4, 3, 8, 8\)",
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_bad_models_are_refused(case):
    model, error, words = MODELS[case]
    with pytest.raises(error, match=words) as caught:
        xcam.explain(model, IMAGES, **({"layer": "net.features"} if case == "detached" else {}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["gradcam", "saliency"])
def test_model_of_two_inputs_is_explained_once_the_other_is_fixed(method):
    """A fixed second image adds a constant to the logits, and changes no gradient."""
    model, other = TwoInputs().eval(), pictures(1)
    named = method != "saliency"
    layer, inner = ({"layer": f"{prefix}{LAYER}"} if named else {} for prefix in ("", "model."))
    expected = xcam.explain(Pooled(), IMAGES, 1, method, **layer)
    got = xcam.explain(OneInput(model, other), IMAGES, 1, method, **inner, batch_size=3)
    assert_close(got.raw, expected.raw)
    assert got.raw.abs().max() > 0
    assert_close(got.logits, model(IMAGES, other.expand(4, -1, -1, -1)).detach())


def test_further_arguments_with_defaults_are_no_inputs():
    expected = xcam.explain(Pooled(), IMAGES, 1, layer=LAYER)
    assert_close(xcam.explain(Optional2(), IMAGES, 1, layer=LAYER).raw, expected.raw)


@pytest.mark.parametrize("error", [AssertionError, RuntimeError])
@pytest.mark.parametrize("method", ["gradcam", "rise", "sobel"])
def test_size_that_the_model_asserts_is_said_in_one_sentence(error, method):
    class Choosy(Pooled):
        def forward(self, images):
            if images.shape[2] != 16:
                raise error("Wrong height!\n  Expected 16")
            return super().forward(images)

    net = Choosy()
    with unchanged(net, IMAGES), pytest.raises(ValueError, match="fails on images") as caught:
        xcam.explain(net, IMAGES, method=method)
    assert "shape (4, 3, 8, 8)" in str(caught.value)
    assert "Wrong height!" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_error_of_a_callable_target_is_raised_as_it_is():
    def target(output, rows):
        return {}[rows]

    with pytest.raises(KeyError):
        xcam.explain(Pooled(), IMAGES, target, layer=LAYER)


def test_refused_models_are_left_as_they_were():
    for case in ("NaN", "scores of parts", "detached", "labels"):
        net = mixed(MODELS[case][0])
        with unchanged(net, IMAGES), pytest.raises(ValueError, match=MODELS[case][2]):
            xcam.explain(net, IMAGES, layer="net.features" if case == "detached" else None)
        net.eval()


def test_model_made_in_inference_mode():
    with torch.inference_mode():
        net = mixed(Pooled())
    with (
        unchanged(net, IMAGES),
        pytest.raises(ModelOutputError, match=r"under torch.inference_mode"),
    ):
        xcam.explain(net, IMAGES, layer=LAYER)
    with unchanged(net, IMAGES):  # no gradients, no objection
        xcam.explain(net, IMAGES, layer=LAYER, method="eigencam")


@pytest.fixture(scope="module")
def expected():
    return xcam.explain(Pooled(), IMAGES, 1, layer=LAYER)


class TestOddButRight:
    def check(self, expected, model, images=IMAGES, target=1, layer=LAYER, **options):
        with unchanged(model, images):
            got = xcam.explain(model, images, target, layer=layer, **options)
        assert_close(got.maps, expected.maps, atol=1e-6, rtol=1e-4)
        assert got.maps.abs().max() > 0
        return got

    def test_train_mode(self, expected):
        self.check(expected, mixed(Pooled()))
        net = Pooled().train()
        self.check(expected, net)
        assert net.features[1].num_batches_tracked == 0

    @pytest.mark.parametrize(
        "target", [[1, 1, 1, 1], torch.ones(4).long(), np.ones(4, int), lambda out, rows: out[:, 1]]
    )
    def test_targets(self, expected, target):
        self.check(expected, Pooled(), target=target)

    @pytest.mark.parametrize("layer", [[LAYER], (LAYER,)])
    def test_layer_in_a_list(self, expected, layer):
        self.check(expected, Pooled(), layer=layer)

    def test_layer_as_a_module(self, expected):
        net = Pooled()
        got = self.check(expected, net, layer=net.features[3])
        assert got.method.layer == LAYER
        assert self.check(expected, net, layer=net.features).method.layer == "features"

    def test_non_contiguous_images(self, expected):
        wide = torch.zeros(4, 3, 8, 16)
        wide[..., ::2] = IMAGES
        images = wide[..., ::2]
        assert not images.is_contiguous()
        self.check(expected, Pooled(), images)
        self.check(expected, Pooled(), IMAGES.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2))

    def test_images_that_require_grad(self, expected):
        images = IMAGES.clone().requires_grad_()
        images.grad = torch.ones_like(images)
        got = self.check(expected, Pooled(), images)
        assert not got.maps.requires_grad
        assert not got.raw.requires_grad
        assert not got.logits.requires_grad

    def test_frozen_weights(self, expected):
        self.check(expected, Pooled().requires_grad_(False))

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_modes_of_the_caller(self, expected, mode):
        net = mixed(Pooled())
        with mode():
            self.check(expected, net)
            self.check(expected, net, IMAGES.clone())  # under inference_mode: made there

    def test_inference_mode_images_outside(self, expected):
        with torch.inference_mode():
            images = IMAGES.clone()
        self.check(expected, Pooled(), images)

    @pytest.mark.parametrize(
        "form",
        [lambda t: {"logits": t}, lambda t: (t, None), lambda t: [{"a": t}, "x"]],
        ids=["dict", "tuple", "nested"],
    )
    def test_logits_in_containers(self, expected, form):
        self.check(expected, Wrapped(Pooled(), form), layer=f"net.{LAYER}")

    def test_scores_in_one_dimension_by_a_callable(self, expected):
        model = Wrapped(Pooled(), lambda t: t[:, 1])
        self.check(expected, model, target=lambda output, rows: output, layer=f"net.{LAYER}")

    def test_compiled(self, expected):
        self.check(expected, torch.compile(mixed(Pooled()), backend="eager"))

    def test_data_parallel(self, expected):
        self.check(expected, nn.DataParallel(mixed(Pooled())))

    def test_float64(self, expected):
        got = xcam.explain(Pooled().double(), IMAGES.double(), 1, layer=LAYER)
        assert got.maps.dtype == torch.float32
        assert_close(got.maps, expected.maps, atol=1e-6, rtol=1e-4)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_model(self, expected, dtype):
        net = mixed(Pooled()).to(dtype)
        with unchanged(net):
            got = xcam.explain(net, IMAGES.to(dtype), 1, layer=LAYER)
        self.about(got, expected)

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_precision(self, expected, precision):
        net = mixed(Pooled())
        with unchanged(net, IMAGES):
            got = xcam.explain(net, IMAGES, 1, layer=LAYER, precision=precision)
        self.about(got, expected)
        assert not torch.equal(got.maps, expected.maps)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_autocast_of_the_caller(self, expected, dtype):
        with torch.autocast("cpu", dtype):
            got = xcam.explain(Pooled(), IMAGES, 1, layer=LAYER)
        self.about(got, expected)

    def about(self, got, expected):
        assert got.maps.dtype == torch.float32
        assert got.logits.dtype == torch.float32
        span = float(expected.maps.max() - expected.maps.min())
        assert_close(got.maps, expected.maps, atol=0.05 * span, rtol=0)

    def test_constant_images(self):
        for value in (0.0, 1.0):
            got = xcam.explain(Pooled(), torch.full((2, 3, 8, 8), value), layer=LAYER)
            assert got.maps.isfinite().all()

    def test_classifier_of_zeros(self):
        net = Pooled()
        nn.init.zeros_(net.fc.weight)
        got = xcam.explain(net, IMAGES, layer=LAYER)
        assert torch.equal(got.maps, torch.zeros(4, 8, 8))
        assert got.warnings == tuple(
            f"image {i}: the map is flat, it points nowhere" for i in range(4)
        )
        with pytest.warns(xcam.errors.XcamWarning, match="flat"):
            assert torch.equal(got.normalized(), torch.zeros(4, 8, 8))

    def test_tokens_of_a_vision_transformer(self):
        got = xcam.explain(TokenNet(), pictures(2, size=16), layer="blocks.1.norm1")
        assert got.raw.shape == (2, 4, 4)
        assert got.maps.abs().max() > 0

    def test_channels_last_features_of_a_swin(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = SwinTransformer([4, 4], 12, [1, 1], [1, 2], [2, 2], num_classes=5).eval()
        images = pictures(2, size=32)
        got = xcam.explain(net, images, layer="features.3.0.norm1")  # (B, h, w, C)
        assert got.raw.shape == (2, 4, 4)
        assert got.maps.abs().max() > 0
        assert xcam.explain(net, images).raw.shape == (2, 4, 4)  # by itself, too
