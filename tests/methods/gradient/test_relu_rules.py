"""Guided Backpropagation, DeconvNet, Guided Grad-CAM against the rules written out, and captum."""

import threading
import warnings

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import xcam
from xcam.errors import ModelOutputError, UnknownNameError, XcamWarning
from xcam.methods import DeconvNet, GradCAM, GuidedBackprop, GuidedGradCAM
from xcam.models.toy import SmallCNN, TokenNet

CLASSES = [3, 0, 1]


@pytest.fixture
def images():
    return torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def close(a, b, limit=1e-5):
    return float((a - b).abs().max()) <= limit * float(b.abs().max())


class Guided(torch.autograd.Function):
    """The rule of Springenberg et al., written out."""

    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (values,) = ctx.saved_tensors
        return gradient.clamp(min=0) * (values > 0)


class Deconvolved(torch.autograd.Function):
    """The rule of Zeiler and Fergus, written out."""

    @staticmethod
    def forward(ctx, values):
        return values.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.clamp(min=0)


RULES = [(GuidedBackprop(), Guided.apply), (DeconvNet(), Deconvolved.apply)]
rules = pytest.mark.parametrize(("method", "rule"), RULES, ids=["guided", "deconvnet"])


class Net(nn.Module):
    """Rectifies by whatever it is given: before a branch too, and twice by the same."""

    def __init__(self, relu):
        super().__init__()
        net = SmallCNN(widths=(8, 8))
        self.first, self.second = net.features[0], net.features[4]
        self.norm, self.head = net.features[1], nn.Linear(8, 5)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(7)
            self.head.weight.copy_(torch.randn(5, 8, generator=generator))
        self.relu = relu

    def forward(self, images):
        early = self.norm(self.first(images))
        late = self.second(self.relu(early + 0)) + early  # the branch goes around the ReLU
        return self.head(self.relu(late).mean((2, 3)))


class Shared(Net):
    """A pre-activation branch: what the first ReLU reads is read by the sum, too."""

    def forward(self, images):
        early = self.norm(self.first(images))
        late = self.second(self.relu(early)) + early
        return self.head(self.relu(late).mean((2, 3)))


def expected(net, images, classes=CLASSES):
    leaf = images.clone().requires_grad_()
    scores = net(leaf)[torch.arange(len(leaf)), classes]
    return torch.autograd.grad(scores.sum(), leaf)[0]


@rules
@pytest.mark.parametrize(
    "relu",
    [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        F.relu,
        torch.relu,
        torch.Tensor.relu,
        F.relu_,
        torch.Tensor.relu_,
        lambda values: F.relu(values, inplace=True),
        lambda values: F.relu(input=values),
        lambda values: (F.relu_(values), values)[1],
    ],
    ids=[
        "module",
        "inplace",
        "F",
        "torch",
        "method",
        "F_",
        "method_",
        "F inplace",
        "keyword",
        "result unused",
    ],
)
def test_rule_applies_however_the_relu_is_called(images, method, rule, relu):
    reference = expected(Net(rule), images)
    found = xcam.explain(Net(relu), images, CLASSES, method).raw
    assert close(found, reference)
    assert not close(found, expected(Net(F.relu), images), 1e-2)


@rules
def test_rule_does_not_change_gradients_of_other_branches(images, method, rule):
    assert close(
        xcam.explain(Shared(nn.ReLU()), images, CLASSES, method).raw, expected(Shared(rule), images)
    )


@rules
@pytest.mark.parametrize("relu6", [nn.ReLU6(), nn.ReLU6(inplace=True), F.relu6])
def test_relu6_is_a_relu_with_a_bound(images, method, rule, relu6):
    images = images * 20  # so that the bound is reached
    bounded = Net(lambda values: rule(values).clamp(max=6))
    assert not torch.allclose(bounded(images), Net(rule)(images))
    assert close(xcam.explain(Net(relu6), images, CLASSES, method).raw, expected(bounded, images))


@pytest.mark.parametrize(
    ("method", "peer"), [(GuidedBackprop(), "GuidedBackprop"), (DeconvNet(), "Deconvolution")]
)
@pytest.mark.parametrize(
    "name", ["small_cnn", "resnet18", "alexnet", "squeezenet1_1", "shufflenet_v2_x0_5"]
)
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
def test_maps_are_those_of_captum(images, method, peer, name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SmallCNN() if name == "small_cnn" else xcam.models.load(f"torchvision:{name}")
    images = F.interpolate(images, (64, 64))
    theirs = getattr(captum.attr, peer)(net).attribute(
        images.clone().requires_grad_(), target=CLASSES
    )
    assert close(xcam.explain(net, images, CLASSES, method).raw, theirs.detach(), 2e-6)


@pytest.mark.filterwarnings("ignore:Setting")
def test_guided_gradcam_against_captum_with_bilinear_resizing(images):
    net = SmallCNN()
    ours = xcam.explain(net, images, CLASSES, GuidedGradCAM(layer="features.4"))
    theirs = captum.attr.GuidedGradCam(net, net.features[4]).attribute(
        images.clone().requires_grad_(), target=CLASSES, interpolate_mode="bilinear"
    )
    assert close(ours.raw, theirs.detach())


def test_guided_gradcam_is_the_product(images):
    net = SmallCNN()
    cam = xcam.explain(net, images, CLASSES, GradCAM(layer="features.6", relu=True)).maps
    guided = xcam.explain(net, images, CLASSES, "guided_backprop").raw
    found = xcam.explain(net, images, CLASSES, "guided_gradcam", layer="features.6")
    torch.testing.assert_close(found.raw, cam[:, None] * guided)
    assert torch.equal(found.maps, found.raw.abs().amax(1))


def test_within_a_module_only(images):
    class Two(nn.Module):
        def __init__(self, features, classifier):
            super().__init__()
            net = SmallCNN()
            self.features = nn.Sequential(net.features, features)
            self.classifier = nn.Sequential(net.pool, nn.Flatten(), classifier, net.classifier)
            for module in (net.features[2], net.features[6]):
                module.inplace = False

        def forward(self, images):
            return self.classifier(self.features(images))

    class By(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, values):
            return self.function(values)

    shift = By(lambda values: F.relu(values - values.mean()))
    reference = Two(By(lambda values: Guided.apply(values - values.mean())), shift)
    for index in (2, 6):
        reference.features[0][index] = By(Guided.apply)
    net = Two(shift, shift)
    found = xcam.explain(net, images, CLASSES, "guided_backprop", within="features").raw
    assert close(found, expected(reference, images))
    everywhere = xcam.explain(net, images, CLASSES, "guided_backprop").raw
    assert not close(found, everywhere, 1e-2)
    with pytest.raises(UnknownNameError, match=r"within='featurs' must.*the nearest are features"):
        xcam.explain(net, images, CLASSES, "guided_backprop", within="featurs")


def test_remedy_for_a_net_without_the_module_of_the_preset(images):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 4))
    with pytest.raises(UnknownNameError, match=r"within='features' must.*None for all ReLUs"):
        xcam.explain(net, images, CLASSES, "guided_backprop", preset="whitebox")
    settings = {"output": "prob", "reduce": "sum", "stretched": True}
    assert xcam.explain(net, images, CLASSES, "guided_backprop", **settings).raw.ndim == 4


@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet"])
def test_net_without_relus_gives_its_plain_gradient_and_a_warning(images, name):
    net = TokenNet()
    with pytest.warns(XcamWarning, match="the model calls no ReLU"):
        found = xcam.explain(net, images, CLASSES, name)
    assert close(found.raw, xcam.explain(net, images, CLASSES, "saliency").raw)
    assert "calls no ReLU" in found.warnings[0]


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet"])
def test_scripted_net_is_refused(images, name):
    net = SmallCNN()
    part = nn.Sequential(torch.jit.script(net.features), net.pool, nn.Flatten(), net.classifier)
    with pytest.raises(TypeError, match=r"'0' of the model is scripted or traced; give the nn.M"):
        xcam.explain(part, images, CLASSES, name)
    for whole in (torch.jit.script(net), torch.jit.trace(net, images)):
        with pytest.raises(TypeError, match=r"and the model is scripted or traced; give the nn.M"):
            xcam.explain(whole, images, CLASSES, name)


@rules
@pytest.mark.parametrize(
    "rectify",
    [lambda t: t.clamp(min=0), lambda t: torch.maximum(t, t * 0), nn.Threshold(0, 0)],
    ids=["clamp", "maximum", "threshold"],
)
def test_what_rectifies_by_another_name_keeps_its_gradient(images, method, rule, rectify):
    with pytest.warns(XcamWarning, match="the model calls no ReLU"):
        found = xcam.explain(Net(rectify), images, CLASSES, method).raw
    assert close(found, expected(Net(rectify), images))


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = SmallCNN()

    def forward(self, images):
        features = checkpoint(self.net.features, images, use_reentrant=False)
        return self.net.classifier(self.net.pool(features).flatten(1))


@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet"])
@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        lambda net: torch.compile(net, backend="eager"),
        lambda net: Checkpointed(),
        lambda net: net.requires_grad_(False),
    ],
    ids=["data_parallel", "compiled", "checkpointed", "frozen"],
)
def test_wrapped_models(images, name, wrap):
    reference = xcam.explain(SmallCNN(), images, CLASSES, name).raw
    wrapped = wrap(SmallCNN())
    with torch.no_grad():
        wrapped(images)
        found = xcam.explain(wrapped, images, CLASSES, name).raw
    assert close(found, reference)
    with torch.inference_mode():
        assert close(xcam.explain(wrapped, images * 1, CLASSES, name).raw, reference)


def hooks(net):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [len(getattr(module, kind)) for module in net.modules() for kind in kinds]


@pytest.mark.parametrize(
    "method", [GuidedBackprop(within="features"), DeconvNet(), GuidedGradCAM()]
)
def test_hooks_and_modules_of_the_model_are_restored_after_a_failure(images, method):
    net = SmallCNN()
    modules, during = [type(module) for module in net.modules()], []
    net.pool.register_forward_hook(lambda *_: during.append(hooks(net.features)))
    before = hooks(net)

    def fails(output, rows):
        raise RuntimeError("planned")

    xcam.explain(net, images, CLASSES, method)
    with pytest.raises(RuntimeError, match="planned"):
        xcam.explain(net, images, fails, method)
    assert hooks(net) == before
    assert [type(module) for module in net.modules()] == modules
    assert not torch.overrides._get_current_function_mode_stack()
    if isinstance(method, DeconvNet):
        assert not any(map(any, during))  # a mode changes the ReLUs, not a hook


@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet", "guided_gradcam"])
def test_score_without_gradient_is_refused(images, name):
    class Cuts(nn.Module):
        def forward(self, images):
            return images.relu().detach().mean((2, 3))

    if name != "guided_gradcam":
        with pytest.raises(ModelOutputError, match="the score has no gradient at the images"):
            xcam.explain(Cuts(), images, 1, name)
    with pytest.raises(ValueError, match="the score has no gradient"):
        xcam.explain(SmallCNN(), images, lambda output, rows: torch.ones(len(rows)), name)


def test_callable_target_gives_the_maps_of_the_logprob_output(images):
    net = SmallCNN()
    for name in ("guided_backprop", "deconvnet", "guided_gradcam"):
        reference = xcam.explain(net, images, 2, name, output="logprob").raw
        found = xcam.explain(net, images, lambda output, rows: output.log_softmax(1)[:, 2], name)
        assert close(found.raw, reference)


@pytest.mark.parametrize(
    ("name", "passes"), [("guided_backprop", 1), ("deconvnet", 1), ("guided_gradcam", 2)]
)
def test_passes(images, name, passes):
    net, rows = SmallCNN(), []
    net.register_forward_hook(lambda module, arguments, output: rows.append(len(arguments[0])))
    xcam.explain(net, images, method=name, batch_size=2)
    assert sum(rows) == 3 * passes


def test_warnings_of_the_model_are_shown(images):
    class Warns(SmallCNN):
        def forward(self, images):
            warnings.warn("of the model", UserWarning, stacklevel=2)
            return super().forward(images)

    with pytest.warns(UserWarning, match="of the model"):
        xcam.explain(Warns(), images, 1, "guided_backprop")


@pytest.mark.parametrize("within", [None, "features"])
def test_passes_of_other_threads_keep_their_gradient(images, within):
    """Another thread's pass in the midst of a guided one: neither changes the other."""
    net, method = SmallCNN(), GuidedBackprop(within=within)
    plain = xcam.explain(net, images, CLASSES, "saliency").raw
    guided = xcam.explain(net, images, CLASSES, method).raw
    found, once = [], threading.Lock()

    def pass_in_another_thread(*_):
        if once.acquire(blocking=False):
            other = threading.Thread(target=lambda: found.append(expected(net, images)))
            other.start()
            other.join(60)

    net.features[3].register_forward_hook(pass_in_another_thread)
    assert torch.equal(xcam.explain(net, images, CLASSES, method).raw, guided)
    torch.testing.assert_close(found[0], plain)
