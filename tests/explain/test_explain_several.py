"""Several methods in one call: a dict of what each gives alone, with shared passes."""

import pytest
import torch
from nets import Staged, Twice, mixed, pictures, unchanged
from torch.testing import assert_close

import xcam
from xcam.errors import UnknownNameError, XcamWarning
from xcam.methods import RISE, GradCAM
from xcam.models.toy import GapNet
from xcam.testing import quick

IMAGES = pictures(3, size=16)
QUICK = {
    "rise": {"n_masks": 8},
    "integrated_gradients": {"n_steps": 3},
    "opticam": {"iterations": 2},
    "smoothgrad": {"n_samples": 2},
    "smoothgrad_squared": {"n_samples": 2},
    "vargrad": {"n_samples": 2},
}


def make(name):
    return quick(xcam.get_method(name)(**QUICK.get(name, {})))


def count(net, *arguments, **settings):
    rows = []
    handle = net.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    try:
        found = xcam.explain(net, *arguments, **settings)
    finally:
        handle.remove()
    return sum(rows) / len(IMAGES), found


POST_HOC = [
    name
    for name in xcam.list_methods()
    if xcam.get_method(name).spec.family != "trainable" and not xcam.get_method(name).spec.net
]


@pytest.mark.parametrize("target", [None, 2, [0, 1, 2], lambda output, rows: output[:, 1]])
def test_each_gives_what_it_gives_alone(target):
    net = GapNet(seed=2)
    # One refuses callables, which name no class to compare with others.
    methods = [make(name) for name in POST_HOC if not (callable(target) and name == "finercam")]
    each = {method.spec.name: xcam.explain(net, IMAGES, target, method) for method in methods}
    for chosen in (methods, methods[::-1]):
        several = xcam.explain(net, IMAGES, target, chosen)
        assert list(several) == [method.spec.name for method in chosen]
        for name, found in several.items():
            alone = each[name]
            assert_close(found.raw, alone.raw, atol=1e-6, rtol=1e-6)
            assert_close(found.logits, alone.logits, atol=1e-6, rtol=1e-6)
            assert (found.target is None) == (alone.target is None)
            assert found.target is None or torch.equal(found.target, alone.target)
            assert repr(found.method) == repr(alone.method)
            assert found.warnings == alone.warnings


@pytest.mark.parametrize(
    ("methods", "passes"),
    [
        (["gradcam", "layercam", "hirescam", "xgradcam", "gradcam_plusplus", "eigengradcam"], 1),
        (["eigencam", "conv_output"], 1),
        (["saliency", "input_x_gradient"], 1),
        (["random", "sobel", "center_gaussian"], 1),
        ([GradCAM("features"), GradCAM("features.0")], 2),
        ([GradCAM("features", output="prob"), GradCAM("features")], 2),
        ([RISE(n_masks=5), "random"], 6),
        (["guided_backprop", "saliency", "deconvnet"], 3),
    ],
)
@pytest.mark.parametrize("target", [None, 1, lambda output, rows: output[:, 1]])
def test_passes_in_common_are_made_once(methods, passes, target):
    net = GapNet()
    methods = [
        GradCAM("features") if one == "gradcam"
        else xcam.get_method(one)(layer="features")
        if isinstance(one, str) and "layer" in make(one).parameters()
        else one
        for one in methods
    ]  # fmt: skip
    assert count(net, IMAGES, target, methods)[0] == passes


def test_chunks_are_shared():
    net, methods = GapNet(), [GradCAM("features"), GradCAM("features", relu=True)]
    made, _ = count(net, IMAGES, None, methods, batch_size=2)
    assert made == 1


class TestLabels:
    def test_names_objects_and_reprs(self):
        net = GapNet()
        found = xcam.explain(net, IMAGES, 0, [GradCAM("features"), GradCAM("features.0"), "sobel"])
        labels = [repr(GradCAM("features")), repr(GradCAM("features.0")), "sobel"]
        assert list(found) == labels
        assert found[labels[1]].method.parameters()["layer"] == "features.0"

    def test_own_labels(self):
        methods = {"late": GradCAM("features"), "early": GradCAM("features.0")}
        found = xcam.explain(GapNet(), IMAGES, method=methods)
        assert [one.method.parameters()["layer"] for one in found.values()] == [
            "features",
            "features.0",
        ]
        assert list(found) == ["late", "early"]

    def test_one_in_a_list_is_a_dict_and_a_tuple_will_do(self):
        assert list(xcam.explain(GapNet(), IMAGES, 0, ("Grad-CAM++",))) == ["gradcam_plusplus"]

    def test_parameters_are_those_of_each(self):
        found = xcam.explain(GapNet(), IMAGES, 0, ["gradcam", "layercam"], layer="features.0")
        assert {one.method.parameters()["layer"] for one in found.values()} == {"features.0"}


class TestRefusals:
    def test_none(self):
        with pytest.raises(ValueError, match="no methods to explain by"):
            xcam.explain(GapNet(), IMAGES, 0, [])

    def test_one_given_twice(self):
        with pytest.raises(ValueError, match="given twice"):
            xcam.explain(GapNet(), IMAGES, 0, ["gradcam", "Grad-CAM"])

    def test_label_that_is_no_string(self):
        with pytest.raises(TypeError, match="a label must be a string, got 3; give '3'"):
            xcam.explain(GapNet(), IMAGES, 0, {3: "gradcam"})

    def test_unknown_or_no_method(self):
        with pytest.raises(UnknownNameError, match="gradcam"):
            xcam.explain(GapNet(), IMAGES, 0, ["gradcam", "gradcan"])
        with pytest.raises(TypeError, match="method must be a name or a Method object, got 3"):
            xcam.explain(GapNet(), IMAGES, 0, ["gradcam", 3])

    def test_parameter_that_one_lacks(self):
        with pytest.raises(TypeError, match="n_masks"):
            xcam.explain(GapNet(), IMAGES, 0, ["rise", "gradcam"], n_masks=5)

    def test_nothing_runs_before_all_are_known(self):
        net = GapNet()
        with pytest.raises(UnknownNameError):
            count(net, IMAGES, 0, ["gradcam", "no_such_method"])


def test_model_is_left_as_it_was_also_by_a_failure():
    net = mixed(Staged())
    methods = [GradCAM("layer"), GradCAM("no_such_layer")]
    with unchanged(net, IMAGES):
        xcam.explain(net, IMAGES, 1, [GradCAM("layer"), "saliency"])
        with pytest.raises(UnknownNameError):
            xcam.explain(net, IMAGES, 1, methods)


def test_notes_of_each_are_its_own():
    """A layer that is called twice is noted for both methods, of which one makes the pass."""
    methods = [GradCAM("layer"), xcam.get_method("layercam")(layer="layer"), "saliency"]
    with pytest.warns(XcamWarning, match="called 2 times"):
        found = xcam.explain(Twice(), IMAGES, 0, methods)
    noted = ["called 2 times" in str(one.warnings) for one in found.values()]
    assert noted == [True, True, False]
