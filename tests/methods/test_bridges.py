"""Methods that other libraries compute: the same numbers, and nothing of the libraries missing."""

import threading
import warnings

import captum.attr
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr._utils.custom_modules import Addition_Module as Addition
from nets import pictures, unchanged
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import xcam
from xcam.errors import LayerError, XcamWarning
from xcam.imaging import make_fill
from xcam.methods.bridges import BRIDGES
from xcam.methods.bridges.linear import LinearModel
from xcam.methods.bridges.repair import repaired
from xcam.methods.bridges.settings import make_segments
from xcam.models.toy import GapNet

IMAGES = pictures(2, size=8)


@pytest.fixture(scope="module")
def net():
    return GapNet().eval().requires_grad_(False)


class Modules(nn.Module):
    """All that has a rule is a module, called once: what captum asks for."""

    def __init__(self, act=nn.ReLU):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.fc = nn.Linear(4, 5)
        self.act1, self.act2, self.act3 = act(), act(), act()
        self.max_pool, self.pool, self.sum = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), Addition()
        self.eval().requires_grad_(False)

    def forward(self, images):
        hidden = self.act1(self.first(self.max_pool(images)))
        hidden = self.act3(self.sum(self.act2(self.second(hidden)), hidden))
        return self.fc(torch.flatten(self.pool(hidden), 1))


class Functions(Modules):
    """The same by functions, in place, and by one module that is called twice."""

    def forward(self, images):
        hidden = self.act1(self.first(F.max_pool2d(images, 2)))
        changed = F.relu(self.second(hidden), inplace=True)
        changed += hidden
        return self.fc(self.act1(changed).mean((2, 3)))


class Chained(Modules):
    """An activation right before a pooling, and one of which captum's hooks are on one tensor."""

    def forward(self, images):
        hidden = self.max_pool(self.act1(self.first(images)))
        return self.fc(self.act3(self.act2(self.second(hidden))).mean((2, 3)))


class Overlapping(Modules):
    """Pools windows that have pixels in common, as ResNets do."""

    def forward(self, images):
        hidden = F.max_pool2d(self.act1(self.first(images)), 3, 2, 1)
        return self.fc(self.second(hidden).mean((2, 3)))


class Smooth(Modules):
    """Activations that captum has no rule for."""

    def forward(self, images):
        hidden = F.gelu(self.first(images), approximate="tanh")
        return self.fc(F.silu(self.second(F.hardswish(hidden))).mean([-2, -1]))


ELEMENTWISE = {
    "prelu": lambda hidden: F.prelu(hidden, torch.full((4,), 0.3)),
    "PReLU": nn.PReLU(4, 0.3).requires_grad_(False),
    "clamp": lambda hidden: hidden.clamp(min=0, max=0.2),
    "leaky_relu_": lambda hidden: F.leaky_relu_(hidden, 0.3),
    "elu_": F.elu_,
    "tanh_": torch.Tensor.tanh_,
    "rrelu": F.rrelu,
    "threshold": lambda hidden: F.threshold(hidden, 0.1, 0.0),
    "selu": torch.selu,
    "hardshrink": F.hardshrink,
    "softshrink": lambda hidden: F.softshrink(hidden, 0.1),
    "ceil_mode": lambda hidden: F.max_pool2d(hidden, 3, 2, ceil_mode=True),
    "dilation": lambda hidden: F.max_pool2d(hidden, (2, 3), 1, (1, 0), dilation=2),
}


class Middle(Modules):
    """A function between two convolutions."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.fc(self.second(self.function(self.first(images))).mean((2, 3)))


@pytest.mark.parametrize("name", ["baseline", "baselines"])
def test_baselines_that_are_not_finite_are_refused(name, net):
    method = {"baseline": "deeplift", "baselines": "gradient_shap"}[name]
    with pytest.raises(ValueError, match=r"must be finite, got .* NaN or infinity"):
        xcam.explain(net, IMAGES, 1, method, **{name: torch.full((1, 3, 8, 8), torch.nan)})


def test_occlusion_of_a_linear_net_is_what_a_window_holds():
    """y = Σ w x: a window that moves by its own size falls by its Σ w (x − baseline)."""
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    weights = linear[1].weight[1].view(3, 8, 8)
    method = xcam.get_method("occlusion")(window=0.25, stride=1.0, baseline="zero")
    got = xcam.explain(linear, IMAGES, 1, method).raw
    held = (weights * IMAGES).sum(1).unfold(1, 2, 2).unfold(2, 2, 2).sum((3, 4))
    expected = held.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(got, expected.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["feature_ablation", "shapley_value_sampling", "kernel_shap", "lime"],
)
def test_regions_of_a_linear_net_have_what_they_hold(name):
    """Whatever the order or the others: Σ w (x − baseline) over the region."""
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    weights = linear[1].weight[1].view(3, 8, 8)
    settings = {"n_segments": 4, "segments": "grid", "baseline": "zero"}
    settings |= {"lime": {"n_samples": 40, "alpha": 0.0}, "kernel_shap": {"n_samples": 40}}.get(
        name, {}
    )
    got = xcam.explain(linear, IMAGES, 1, name, **settings).raw
    held = (weights * IMAGES).sum(1).unfold(1, 4, 4).unfold(2, 4, 4).sum((3, 4))
    expected = held.repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.testing.assert_close(got, expected.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "samples"),
    [("shapley_value_sampling", 3), ("shapley_value_sampling", None), ("kernel_shap", 3)],
)
def test_shapley_values_add_up_to_what_the_baseline_lacks(name, samples, net):
    settings = {"n_samples": samples, "n_segments": 4, "segments": "grid", "baseline": "zero"}
    got = xcam.explain(net, IMAGES, 1, name, **settings).raw
    missing = net(IMAGES)[:, 1] - net(torch.zeros_like(IMAGES))[:, 1]
    torch.testing.assert_close(got[:, ::4, ::4].sum((1, 2)), missing, rtol=1e-3, atol=1e-5)


def test_all_orders_give_what_captum_calls_shapley_values(net):
    settings = {"n_segments": 4, "segments": "grid", "baseline": "zero"}
    method = xcam.get_method("shapley_value_sampling")(n_samples=None, **settings)
    mask = make_segments(method, IMAGES[:1])
    expected = captum.attr.ShapleyValues(net).attribute(IMAGES[:1], target=1, feature_mask=mask)
    got = xcam.explain(net, IMAGES[:1], 1, method).raw
    torch.testing.assert_close(got, expected[:, 0], rtol=1e-4, atol=1e-6)


def test_gradient_shap_of_a_linear_net_is_exact():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    baselines = torch.full((1, 3, 8, 8), 0.3)
    method = xcam.get_method("gradient_shap")(baselines=baselines)
    got = xcam.explain(linear, IMAGES, 1, method).raw
    expected = linear[1].weight[1].view(3, 8, 8) * (IMAGES - 0.3)
    torch.testing.assert_close(got, expected.detach(), rtol=1e-4, atol=1e-6)


RULED = ["deeplift", "deeplift_shap", ("lrp", {"epsilon": 0.1}), ("lrp", {"rule": "gamma"})]


@pytest.mark.parametrize("method", RULED, ids=str)
def test_functions_are_explained_like_modules(method):
    name, settings = method if isinstance(method, tuple) else (method, {})
    expected = xcam.explain(Modules(), IMAGES, 1, name, **settings).raw
    got = xcam.explain(Functions(), IMAGES, 1, name, **settings).raw
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [Modules, Functions, Chained, Overlapping, Smooth])
def test_deeplift_adds_up_to_what_the_baseline_lacks(make):
    model = make()
    for baseline in ("zero", "mean"):
        got = xcam.explain(model, IMAGES, 1, "deeplift", baseline=baseline).raw
        reference = make_fill(IMAGES, baseline).contiguous()
        missing = (model(IMAGES) - model(reference))[:, 1]
        torch.testing.assert_close(got.sum((1, 2, 3)), missing, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_deeplift_adds_up_whatever_the_activation_or_pooling(name):
    model = Middle(ELEMENTWISE[name])
    found = xcam.explain(model, IMAGES, 1, "deeplift")
    expected = (model(IMAGES) - model(torch.zeros_like(IMAGES)))[:, 1]
    torch.testing.assert_close(found.raw.sum((1, 2, 3)), expected, rtol=1e-3, atol=1e-5)
    assert not found.warnings


@pytest.mark.parametrize("method", ["deeplift", "deeplift_shap"])
def test_maps_that_do_not_add_up_are_noted(method):
    with pytest.warns(XcamWarning, match="do not add up to the change of the score"):
        xcam.explain(Middle(torch.square), IMAGES, 1, method)


def test_deeplift_shap_takes_all_baselines():
    model, baselines = Modules(), pictures(3, size=8, seed=7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = captum.attr.DeepLiftShap(model).attribute(IMAGES, baselines, target=1).detach()
    method = xcam.get_method("deeplift_shap")(baselines=baselines)
    torch.testing.assert_close(
        xcam.explain(model, IMAGES, 1, method).raw, theirs, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "theirs", "settings"),
    [
        ("deeplift", "LayerDeepLift", {}),
        ("deeplift_shap", "LayerDeepLiftShap", {}),
        ("lrp", "LayerLRP", {}),
        ("gradient_shap", "LayerGradientShap", {"n_samples": 3}),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_layers_are_explained_as_by_captums_layer_classes(name, theirs, settings):
    model, image, baselines = Modules(), IMAGES[:1], pictures(3, size=8, seed=7)
    given = {"baselines": baselines} if name.endswith("shap") else {}
    method = xcam.get_method(name)(at="second", **given, **settings)
    raw = xcam.explain(model, image, 1, method).raw
    if name == "deeplift":
        given = {"baselines": torch.zeros_like(image)}
    torch.manual_seed(0)
    np.random.seed(0)
    leaf = image.clone().requires_grad_()
    expected = getattr(captum.attr, theirs)(model, model.second).attribute(
        leaf, target=1, **given, **settings
    )
    torch.testing.assert_close(raw, expected.sum(1).detach(), rtol=1e-4, atol=1e-6)
    on_functions = xcam.explain(Functions(), image, 1, method).raw
    torch.testing.assert_close(on_functions, raw, rtol=1e-4, atol=1e-6)


def test_integrated_gradients_of_a_layer_are_captums():
    model = Modules()
    settings = {"layer": "second", "n_steps": 8, "path": "layer"}
    raw = xcam.explain(model, IMAGES, 1, "internal_influence", **settings).raw
    theirs = captum.attr.LayerIntegratedGradients(model, model.second)
    expected = theirs.attribute(IMAGES, target=1, n_steps=8).sum(1).detach()
    torch.testing.assert_close(raw, expected.float(), rtol=1e-4, atol=1e-6)


def test_lrp_hands_back_the_whole_score_where_there_is_no_bias():
    for model in (Modules(), Functions(), Chained(), Overlapping()):
        for part in (model.first, model.second, model.fc):
            part.bias.zero_()
        got = xcam.explain(model, IMAGES, 1, "lrp").raw
        torch.testing.assert_close(got.sum((1, 2, 3)), model(IMAGES)[:, 1], rtol=1e-3, atol=1e-4)


def test_layer_conductance_adds_up_to_what_the_baseline_lacks(net):
    got = xcam.explain(net, IMAGES, 1, "layer_conductance", n_steps=64).raw
    missing = (net(IMAGES) - net(torch.zeros_like(IMAGES)))[:, 1]
    torch.testing.assert_close(got.sum((1, 2)), missing, rtol=2e-2, atol=1e-4)


def test_internal_influence_right_before_pooling_is_the_weight_everywhere(net):
    got = xcam.explain(net, IMAGES, 1, "internal_influence", n_steps=3, times_activation=False).raw
    cells = got.shape[1] * got.shape[2]
    expected = (net.fc.weight[1].sum() / cells).expand_as(got)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 5)

    def forward(self, images):
        return self.fc(self.norm(self.conv(images)).mean((2, 3)))


class Aliased(Modules):
    """Reads what an activation has overwritten."""

    def forward(self, images):
        hidden = self.first(images)
        F.relu_(hidden)
        return self.fc(hidden.mean((2, 3)))


class Reused(Modules):
    def forward(self, images):
        hidden = self.second(F.relu(self.second(self.first(images))))
        return self.fc(hidden.mean((2, 3)))


@pytest.mark.parametrize(
    ("make", "method", "sentence"),
    [
        (Normed, "lrp", "LRP cannot explain the model: Module of type .*GroupNorm.* has no rule"),
        (Reused, "lrp", "LRP cannot explain the model: Module Conv2d.* is being used more than"),
        (Aliased, "lrp", "something else when its activations do not work in place"),
        (Aliased, "deeplift", "something else when its activations do not work in place"),
    ],
)
def test_nets_without_rules_are_refused_and_the_remedy_applies(make, method, sentence):
    model = make()
    with unchanged(model, IMAGES), pytest.raises(LayerError, match=sentence) as caught:
        xcam.explain(model, IMAGES, 1, method)
    assert "'integrated_gradients'" in str(caught.value)
    assert xcam.explain(model, IMAGES, 1, "integrated_gradients", n_steps=2).raw.isfinite().all()


def test_lasso_is_that_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(2, (60, 9), generator=generator).float()
    outputs = inputs @ torch.linspace(-1, 1, 9) + 0.1 * torch.randn(60, generator=generator)
    weights = torch.rand(60, generator=generator) + 0.1
    ours = LinearModel(0.05)
    ours.fit(DataLoader(TensorDataset(inputs, outputs, weights)))
    share = weights / weights.sum()
    least = (inputs - share @ inputs).mT @ (share * (outputs - share @ outputs))  # for none
    theirs = linear_model.Lasso(alpha=0.05 * float(least.abs().max()), tol=1e-6)
    theirs.fit(*[each.double().numpy() for each in (inputs, outputs, weights)])
    expected = torch.from_numpy(theirs.coef_)[None]
    assert (expected == 0).any()
    torch.testing.assert_close(ours.representation().to(expected), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"baselines": ()}, r"baselines must hold one at least, such as \('zero',\), got \(\)"),
        (
            {"baselines": torch.rand(2, 3, 4, 4)},
            r"must be images \(N, 3, 8, 8\), got \(2, 3, 4, 4\)",
        ),
        ({"baselines": ("black",)}, "gradient_shap: baselines must be"),
        ({"noise": -1.0}, "gradient_shap: noise must be a finite number of at least 0"),
    ],
)
def test_wrong_settings_are_refused(settings, sentence, net):
    with pytest.raises(ValueError, match=sentence):
        xcam.explain(net, IMAGES, 1, "gradient_shap", **settings)


@pytest.mark.parametrize(
    ("name", "settings", "sentence", "remedy"),
    [
        (
            *("shapley_value_sampling", {"n_samples": None, "n_segments": 9, "segments": "grid"}),
            *(r"9 regions have 3.6e\+05; set n_samples=25, or n_segments=4", {"n_segments": 4}),
        ),
        (
            *("kernel_shap", {"n_segments": 2, "segments": "grid", "n_samples": 20}),
            *("n_segments=2 divides the image into 1 region; set n_segments=4", {"n_segments": 4}),
        ),
        (
            *("internal_influence", {"path": "layer", "times_activation": False, "n_steps": 2}),
            *("times_activation=False has no effect", {"path": "image"}),
        ),
    ],
)
def test_settings_that_cannot_apply_are_refused_and_the_remedy_applies(
    name, settings, sentence, remedy, net
):
    with pytest.raises(ValueError, match=sentence):
        xcam.explain(net, IMAGES[:1], 1, name, **settings)
    assert xcam.explain(net, IMAGES[:1], 1, name, **settings | remedy).raw.any()


def test_net_that_cannot_be_copied_is_refused_and_the_remedy_applies():
    model = Modules()
    model.lock = threading.Lock()
    with pytest.raises(LayerError, match=r"cannot be copied, .*lock.*; use a method without rules"):
        xcam.explain(model, IMAGES, 1, "deeplift")
    assert xcam.explain(model, IMAGES, 1, "integrated_gradients", n_steps=2).raw.any()


@pytest.mark.parametrize("fails", [False, True])
def test_whatever_a_library_changes_is_put_back(fails):
    """Modes, gradients, swapped modules, hooks, attributes, also after an error."""
    net = GapNet().train()
    state = [(dict(vars(m)), dict(m._modules), dict(m._forward_hooks)) for m in net.modules()]
    try:
        with repaired(net, "captum"):
            net.features[1] = nn.Sigmoid()
            net.fc.register_forward_hook(print)
            net.fc.rule = "epsilon"
            net.extra = nn.Identity()
            net.zero_grad()
            net.eval()
            if fails:
                raise KeyError("by the library")
    except KeyError:
        assert fails
    after = [(dict(vars(m)), dict(m._modules), dict(m._forward_hooks)) for m in net.modules()]
    assert len(after) == len(state)
    for one, other in zip(state, after, strict=True):
        assert [each.keys() for each in one] == [each.keys() for each in other]
        assert all(a[key] is b[key] for a, b in zip(one[1:], other[1:], strict=True) for key in a)
    assert net.training


def test_classes_are_made_like_those_that_are_written_out():
    for cls in BRIDGES:
        assert getattr(xcam.methods.bridges, cls.__name__) is cls
        assert cls.__doc__.splitlines()[0].endswith(".")
        for name in cls().parameters():
            assert f"\n    {name}: " in cls.__doc__, (cls, name)
        assert all(len(line) <= 100 for line in cls.__doc__.splitlines()), cls
