"""Every registered method keeps the contract, and costs what it says."""

import dataclasses

import pytest
import torch
from torch import nn

import xcam
from xcam.registry import installed
from xcam.testing import check_method, quick
from xcam.testing.method_subject import attach_head, explain_quietly, prepare_net
from xcam.testing.probe import CLASSES, ProbeNet, sample_images


def explain(method, net):
    return explain_quietly(method, net, sample_images(), CLASSES)


OWN = [name for name in xcam.list_methods() if installed().owners[name].startswith("xcam:")]
TRAINABLE = [name for name in OWN if xcam.get_method(name).spec.family == "trainable"]


@pytest.mark.parametrize("name", xcam.list_methods())
def test_contract(name):
    assert [result for result in check_method(name) if result.outcome == "broken"] == []


@pytest.mark.parametrize("name", OWN)
def test_state_of_the_model_makes_no_difference(name):
    """What `explain` does for every method: training mode, trainable or frozen parameters."""
    method = quick(xcam.get_method(name)())
    reference = explain(method, prepare_net(method, ProbeNet())).raw
    for change in (nn.Module.train, lambda net: net.requires_grad_(False)):
        net = prepare_net(method, ProbeNet())
        assert torch.equal(explain(method, change(net)).raw, reference)


@pytest.mark.parametrize("name", TRAINABLE)
def test_trained_nets_come_back_from_a_file(name, tmp_path):
    """With the maps bit for bit, and with every field of the method."""
    method, path = xcam.get_method(name)(), tmp_path / "net.safetensors"
    net = attach_head(method, ProbeNet())
    xcam.save(net, path)
    loaded = xcam.load(path, model=ProbeNet())
    assert loaded.method == net.method
    assert torch.equal(explain(method, loaded).raw, explain(method, net).raw)
    assert explain(method, loaded).method == net.method  # None is filled in by the net's own


def test_all_of_xcams_methods_are_checked():
    from xcam.methods import METHODS

    assert {cls.spec.name for cls in METHODS} == set(OWN)


def test_few_methods_need_exceptions():
    excused = [name for name in OWN if xcam.get_method(name).spec.exceptions]
    assert len(excused) <= 5


def once(method, live):
    return 1


def each_channel(method, live):
    return 1 + live


def each(field):
    return lambda method, live: 1 + getattr(method, field)


def searched(method, live):
    return 1 + 0.5  # to find out how the net attends, by one of the two images


# Images through the model for each image explained, from the method and how many channels of the
# layer are live.
PASSES = {
    "ablationcam": lambda method, live: 2 + live,  # the clean score, rounded as the others
    "abn": once,
    "attention_gradient": searched,
    "attention_rollout": searched,
    "aug_smooth": lambda method, live: 1 + 2 * len(method.factors),
    "calm": once,
    "castream": once,
    "cam": once,
    "cbam": once,
    "center_gaussian": once,
    "conv_output": once,
    "deconvnet": once,
    "deeplift": lambda method, live: 2 + 2,
    "deeplift_shap": lambda method, live: 2 + 2 * len(method.baselines),
    "eigen_smooth": once,
    "eigencam": once,
    "eigengradcam": once,
    "fem": once,
    "feature_ablation": lambda method, live: 2 + method.n_segments,
    "feature_permutation": lambda method, live: 3 + 2 * method.n_segments,
    "finercam": lambda method, live: 2,
    "fullgrad": once,
    "gradcam": once,
    "gradcam_elementwise": once,
    "gradcam_plusplus": once,
    "gradient_shap": each("n_samples"),
    "guided_backprop": once,
    "guided_gradcam": lambda method, live: 2,
    "hirescam": once,
    "input_x_gradient": once,
    "integrated_gradients": each("n_steps"),
    "iscam": lambda method, live: 1 + method.n_samples * live,
    "kernel_shap": each("n_samples"),
    "internal_influence": each("n_steps"),
    "layer_conductance": lambda method, live: 2 + method.n_steps,
    "layer_fusion": once,
    "layercam": once,
    "kpca_cam": once,
    "lcam_fm": once,
    "lcam_img": once,
    "legrad": searched,
    "lficam": once,
    "lime": each("n_samples"),
    "lrp": lambda method, live: 2 + 2,
    "occlusion": lambda method, live: 2 + 8**2,  # windows of 3 pixels, by 2, in 16
    "opticam": each("iterations"),
    "ran": once,
    "random": once,
    "random_cam": once,
    "refinecam": lambda method, live: 1 + 0.5 + 1,  # to find the stages by one image: one stage
    "rise": each("n_masks"),
    "saliency": once,
    "scorecam": each_channel,
    "seg_eigencam": once,
    "sess": lambda method, live: 1 + 2 * (1 + 4),
    "shapleycam": once,
    "smooth_gradcam_plusplus": each("n_samples"),
    "sscam": lambda method, live: 1 + method.n_samples * live,
    "shapley_value_sampling": lambda method, live: 2 + method.n_samples * method.n_segments,
    "smoothgrad": each("n_samples"),
    "smoothgrad_squared": each("n_samples"),
    "sobel": once,
    "vargrad": each("n_samples"),
    "warn": once,
    "xgradcam": once,
}


def test_every_method_of_xcam_has_a_cost():
    assert sorted(PASSES) == OWN


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("factor", [1, 2])
def test_passes(name, factor):
    method, probe, images = quick(xcam.get_method(name)()), ProbeNet(), sample_images(2)
    costly = {"n_masks", "n_samples", "n_steps", "iterations"} & method.parameters().keys()
    more = {field: factor * getattr(method, field) for field in costly}
    method = dataclasses.replace(method, **more)
    with torch.no_grad():
        features = probe.features(images).flatten(2)
    live = (features.amax(2) > features.amin(2)).sum(1).tolist()
    assert max(live) < features.shape[1]  # or it would not show that the others are skipped
    rows, net = [], prepare_net(method, probe)
    net.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    explain_quietly(method, net, images, 1)
    assert sum(rows) == sum(PASSES[name](method, count) for count in live)
