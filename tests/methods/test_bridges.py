"""Methods that other libraries compute: the same numbers, and nothing of the libraries missing."""

import captum.attr
import numpy as np
import pytest
import torch
from nets import pictures
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import xcam
from xcam.methods.bridges import BRIDGES, ROWS
from xcam.methods.bridges.captum_calls import CaptumCall
from xcam.methods.bridges.linear import LinearModel
from xcam.methods.bridges.repair import repaired
from xcam.methods.bridges.settings import make_segments
from xcam.models.toy import GapNet
from xcam.testing import quick

IMAGES = pictures(2, size=8)
CAPTUM = [row for row in ROWS if isinstance(row.run, CaptumCall)]


@pytest.fixture(scope="module")
def net():
    return GapNet().eval().requires_grad_(False)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("row", CAPTUM, ids=lambda row: row.name)
def test_captum_gives_the_same_for_each_image(row, net):
    """Called by hand, with its own target, on the net itself."""
    method = quick(xcam.get_method(row.spec.name)())
    raw = xcam.explain(net, IMAGES, [1, 3], method).raw
    for image, target, got in zip(IMAGES, [1, 3], raw, strict=True):
        torch.manual_seed(0)
        np.random.seed(0)
        image = image[None].clone().requires_grad_(row.run.differentiates)
        found = row.run.attribute(net, method, image, target=target).detach()
        expected = found[0, 0] if row.run.gives == "pixel" else found[0]
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


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
    got = xcam.explain(linear, IMAGES, 1, "gradient_shap", baselines=baselines).raw
    expected = linear[1].weight[1].view(3, 8, 8) * (IMAGES - 0.3)
    torch.testing.assert_close(got, expected.detach(), rtol=1e-4, atol=1e-6)


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
        assert all(len(line) <= 400 for line in cls.__doc__.splitlines())
