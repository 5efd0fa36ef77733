"""Captum called by hand, as its users call it, gives the same as its methods here."""

import captum.attr
import numpy as np
import pytest
import torch
from captum.attr._core.lime import get_exp_kernel_similarity_function
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule
from test_bridges import IMAGES, Modules

import xcam
from xcam.imaging import make_fill
from xcam.methods.bridges import ROWS
from xcam.methods.bridges.captum_calls import CaptumCall
from xcam.methods.bridges.linear import LinearModel
from xcam.methods.bridges.settings import make_segments
from xcam.testing import quick

CAPTUM = [row for row in ROWS if isinstance(row.run, CaptumCall)]


def _mask(name, image):
    return make_segments(quick(xcam.get_method(name)()), image)


def _mean(image):
    return image.mean((2, 3), keepdim=True).expand_as(image).detach()


def _three(image):
    return torch.cat([make_fill(image.detach(), fill) for fill in ("zero", "mean", "blur")])


def _permute(net, image, target):
    drawn = image.flatten(2)[:, :, torch.randperm(64)].view_as(image)
    mask = _mask("feature_permutation", image)
    both = torch.cat([image, drawn])
    return captum.attr.FeaturePermutation(net).attribute(both, target, feature_mask=mask)[:1]


def _fit_lime(net, image, target):
    near = get_exp_kernel_similarity_function("cosine", 0.25)
    lime = captum.attr.Lime(net, LinearModel(0.02), near)
    mask = _mask("lime", image)
    return lime.attribute(image, _mean(image), target, feature_mask=mask, n_samples=3)


def _fit_kernel_shap(net, image, target):
    mask = _mask("kernel_shap", image)
    explainer = captum.attr.KernelShap(net)
    explainer.interpretable_model = LinearModel()
    return explainer.attribute(image, _mean(image), target, feature_mask=mask, n_samples=3)


def _influence(net, image, target):
    explainer = captum.attr.InternalInfluence(net, net.second)
    hidden = net.act1(net.first(net.max_pool(image)))
    return explainer.attribute(image, None, target, n_steps=4) * net.second(hidden)


def _compare_with_three(net, image, target):
    explainer = captum.attr.DeepLift(net)
    each = [explainer.attribute(image, baseline[None], target) for baseline in _three(image)]
    return torch.stack(each).mean(0)


CALLS = {
    "gradient_shap": lambda net, image, target: captum.attr.GradientShap(net).attribute(
        image, _three(image), n_samples=3, target=target
    ),
    "deeplift": lambda net, image, target: captum.attr.DeepLift(net).attribute(image, None, target),
    "deeplift_shap": _compare_with_three,
    "lrp": lambda net, image, target: captum.attr.LRP(net).attribute(image, target),
    "internal_influence": _influence,
    "layer_conductance": lambda net, image, target: captum.attr.LayerConductance(
        net, net.second
    ).attribute(image, None, target, n_steps=4),
    "occlusion": lambda net, image, target: captum.attr.Occlusion(net).attribute(
        image, (3, 2, 2), (3, 1, 1), _mean(image), target
    ),
    "feature_ablation": lambda net, image, target: captum.attr.FeatureAblation(net).attribute(
        image, _mean(image), target, feature_mask=_mask("feature_ablation", image)
    ),
    "feature_permutation": _permute,
    "shapley_value_sampling": lambda net, image, target: captum.attr.ShapleyValueSampling(
        net
    ).attribute(
        image,
        _mean(image),
        target,
        feature_mask=_mask("shapley_value_sampling", image),
        n_samples=3,
    ),
    "kernel_shap": _fit_kernel_shap,
    "lime": _fit_lime,
}
"""How a user of captum gets the same: methods by the settings of `quick`."""


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("row", CAPTUM, ids=lambda row: row.name)
def test_captum_gives_the_same_for_each_image(row):
    """Called by hand, with its own target, on the net itself."""
    model = Modules()
    layer = {"layer": "second"} if row.run.gives == "layer" else {}
    method = quick(xcam.get_method(row.spec.name)(**layer))
    raw = xcam.explain(model, IMAGES, [1, 3], method).raw
    for image, target, got in zip(IMAGES, [1, 3], raw, strict=True):
        torch.manual_seed(0)
        np.random.seed(0)
        image = image[None].clone().requires_grad_(row.run.differentiates)
        found = CALLS[row.spec.name](model, image, target)[0].detach().float()
        expected = {"pixel": found[0], "layer": found.sum(0)}.get(row.run.gives, found)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_alpha1_beta0_rule_is_captums():
    model = Modules()
    got = xcam.explain(model, IMAGES[:1], 1, "lrp", rule="alpha1_beta0").raw
    for layer in (model.first, model.second, model.fc):
        layer.rule = Alpha1_Beta0_Rule()
    image = IMAGES[:1].clone().requires_grad_()
    expected = captum.attr.LRP(model).attribute(image, 1).detach()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
