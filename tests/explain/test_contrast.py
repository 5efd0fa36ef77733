"""`contrast=`: why one class rather than another, the difference of the maps of the two."""

import io

import matplotlib as mpl
import pytest
import torch
from nets import pictures, unchanged
from test_explain_several import POST_HOC, count, make
from torch.testing import assert_close

import xcam
from xcam import Explanation, imaging
from xcam.errors import XcamWarning
from xcam.methods import CALM, Saliency
from xcam.models.toy import GapNet

IMAGES = pictures(3, size=16)
SPECIFIC = [name for name in POST_HOC if xcam.get_method(name).spec.class_specific]
FREE = [name for name in POST_HOC if name not in SPECIFIC]


@pytest.fixture(scope="module")
def calm():
    torch.manual_seed(0)
    net = CALM().attach(GapNet(seed=2)).eval()
    net.fitted = True
    return net


@pytest.mark.parametrize("name", SPECIFIC)
def test_is_the_difference_of_the_maps_of_two_classes(name):
    net, method = GapNet(seed=2), make(name)
    with unchanged(net, IMAGES):
        found = xcam.explain(net, IMAGES, [0, 1, 2], method, contrast=[2, 0, 1])
    one, other = (xcam.explain(net, IMAGES, y, method) for y in ([0, 1, 2], [2, 0, 1]))
    assert_close(found.maps, one.maps - other.maps, atol=1e-6, rtol=1e-5)
    assert found.raw.ndim == one.raw.ndim
    assert (found.target.tolist(), found.contrast.tolist()) == ([0, 1, 2], [2, 0, 1])
    assert_close(found.logits, one.logits)
    back = xcam.explain(net, IMAGES, [2, 0, 1], method, contrast=[0, 1, 2])
    assert_close(back.maps, -found.maps, atol=1e-6, rtol=1e-5)


def test_of_gradcam_is_that_of_the_difference_of_logits():
    net = GapNet(seed=2)
    found = xcam.explain(net, IMAGES, 1, "gradcam", contrast=0)
    score = xcam.explain(net, IMAGES, lambda output, rows: output[:, 1] - output[:, 0], "gradcam")
    assert_close(found.maps, score.maps, atol=1e-6, rtol=1e-5)


def test_of_calm_is_the_difference_of_joint_probabilities_from_one_pass(calm):
    passes, found = count(calm, IMAGES, 1, contrast=[0, 2, 2])
    assert passes == 1
    log_likelihood, prior = calm.head(calm.classifier.features(IMAGES))
    joint = log_likelihood.softmax(1) * prior
    rows = torch.arange(3)
    assert_close(found.raw, (joint[:, 1] - joint[rows, [0, 2, 2]]).detach(), atol=1e-7, rtol=1e-5)
    with pytest.raises(ValueError, match="calm, as it is set, gives the same map for every class"):
        xcam.explain(calm, IMAGES, 1, map="saliency", contrast=0)


def test_predicted_class_is_the_target_and_a_note_says_where_it_is_the_contrast():
    net = GapNet(seed=2)
    predicted = net(IMAGES).argmax(1)
    found = xcam.explain(net, IMAGES, method="gradcam", contrast=int(predicted[0]))
    assert torch.equal(found.target, predicted)
    same = [i for i in range(3) if predicted[i] == predicted[0]]
    told = [note.image for note in found.notes if "is the contrast itself" in note.text]
    assert told == same
    assert not found.raw[same].any()


def test_several_methods_share_it_and_a_class_agnostic_one_is_refused_first():
    net = GapNet(seed=2)
    found = xcam.explain(net, IMAGES, 1, ["gradcam", "saliency"], contrast=0)
    for name, one in found.items():
        assert_close(one.maps, xcam.explain(net, IMAGES, 1, name, contrast=0).maps)
    with pytest.raises(ValueError, match="eigencam, as it is set, gives the same map for every"):
        xcam.explain(net, IMAGES, 1, ["gradcam", "eigencam"], contrast=0)


@pytest.mark.parametrize("name", FREE)
def test_refuses_methods_that_know_no_class(name):
    with pytest.raises(ValueError, match=f"{name}, as it is set, .* such as 'gradcam'$"):
        xcam.explain(GapNet(), IMAGES, 1, make(name), contrast=0)


@pytest.mark.parametrize(
    ("target", "contrast", "error", "sentence"),
    [
        (1, 1, ValueError, "the contrast of image 0 is its target, class 1; give another class"),
        ([0, 1, 2], [1, 2, 2], ValueError, "the contrast of image 2 is its target, class 2"),
        (1, 99, ValueError, "contrast 99 is out of range: the model has"),
        (1, -1, ValueError, "contrast -1 is negative"),
        (1, [0, 2], ValueError, "contrast must name one class for each of the 3 images"),
        (1, 0.5, TypeError, "contrast must be the number or name of a class, or"),
        (1, "cat", ValueError, "contrast 'cat' is the name of a class, and the model names none"),
        (
            1,
            lambda output, rows: output[:, 0],
            TypeError,
            "contrast must be the number or name of a",
        ),
        (lambda output, rows: output[:, 0], 1, TypeError, "needs a class as the target, got a"),
    ],
)
def test_refuses_what_is_no_other_class(target, contrast, error, sentence):
    net = GapNet()
    with unchanged(net, IMAGES), pytest.raises(error, match=sentence):
        xcam.explain(net, IMAGES, target, "gradcam", contrast=contrast)


class TestExplanation:
    @pytest.fixture(params=["gradcam", "saliency"])
    def found(self, request):
        return xcam.explain(GapNet(seed=2), IMAGES, 1, request.param, contrast=[0, 2, 0])

    def test_survives_a_file_and_choosing_joining_and_moving(self, found, tmp_path):
        found.save(tmp_path / "e.safetensors")
        loaded = xcam.load(tmp_path / "e.safetensors")
        joined = Explanation.cat([found[:1], found[1:]])
        for other in (loaded, joined, found.to("cpu")):
            assert torch.equal(other.maps, found.maps)
            assert other.contrast.tolist() == [0, 2, 0]
            assert repr(other) == repr(found)
        assert found[1].contrast.tolist() == [2]
        halved = found.to(torch.float16)
        assert (halved.contrast.dtype, halved.maps.dtype) == (torch.int64, torch.float16)
        plain = xcam.explain(GapNet(seed=2), IMAGES, 1, found.method)
        with pytest.raises(ValueError, match="cannot join maps of a class to maps with a contrast"):
            Explanation.cat([found, plain])

    def test_repr_and_captions_name_both_classes(self, found):
        assert repr(found).endswith(", target [1, 1, 1], contrast [0, 2, 0]>")
        names = ["ant", "bee", "cat", "dog", "eel"]
        odds = found.logits.softmax(1)
        lines = found.captions(names)[1].split("\n")
        bee, cat = (f"{float(odds[1, k]):.0%}" for k in (1, 2))
        assert lines[:5] == ["bee", bee, "rather than", "cat", cat]

    def test_normalizes_around_zero(self, found):
        scaled = found.normalized()
        largest = found.maps.abs().amax((1, 2), keepdim=True)
        assert_close(scaled, found.maps / largest)
        assert_close(scaled.abs().amax((1, 2)), torch.ones(3))
        positive = found.maps.clamp(min=0)
        assert_close(found.normalized(relu=True), positive / positive.amax((1, 2), keepdim=True))

    def test_overlay_is_symmetric_around_zero(self):
        maps = torch.tensor([[[-2.0, -1.0], [0.0, 2.0]]])
        method = Saliency(reduce="abs_max")
        zero, one = torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.long)
        found = Explanation(maps, (2, 2), one, None, method, contrast=zero)
        image = torch.full((1, 3, 2, 2), 0.25)
        got = found.overlay(image, alpha=1)
        ends = torch.tensor([mpl.colormaps["RdBu_r"](n)[:3] for n in (0, 255)], dtype=torch.float32)
        assert_close(got[0, :, 0, 0], ends[0])  # blue, against
        assert_close(got[0, :, 1, 1], ends[1])  # red, for
        assert_close(got[0, :, 1, 0], image[0, :, 0, 0])  # zero shows the image
        half = imaging.colorize(torch.tensor([[[0.25]]]), "RdBu_r")[0, :, 0, 0]
        assert_close(got[0, :, 0, 1], (half + image[0, :, 0, 0]) / 2)
        other = found.overlay(image, alpha=1, colors="coolwarm")
        assert not torch.equal(got, other)

    def test_plot_has_a_scale_from_minus_one_to_one(self, found):
        figure = found.plot(IMAGES)
        scale = figure.axes[-1]
        assert scale.get_ylim() == (-1.0, 1.0)
        assert scale.get_ylabel() == "against … for, share of the largest"
        assert figure.axes[0].yaxis.label.get_text().count("rather than") == 1
        figure.savefig(io.BytesIO())

    def test_flat_difference_becomes_zeros_with_a_warning(self):
        flat = torch.full((1, 2, 2), 0.3)
        one, zero = torch.ones(1, dtype=torch.long), torch.zeros(1, dtype=torch.long)
        found = Explanation(flat, (2, 2), one, None, Saliency(), contrast=zero)
        with pytest.warns(XcamWarning, match="the map is flat"):
            assert not found.normalized().any()


def test_equal_maps_of_two_classes_are_noted():
    net = GapNet()
    last = [module for module in net.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight[1] = last.weight[0]
    same = xcam.explain(net, IMAGES[:1], 0, "gradcam", contrast=1)
    assert "the target's map and the contrast's are the same" in str(same.warnings)
    other = xcam.explain(net, IMAGES[:1], 0, "gradcam", contrast=2)
    assert "are the same" not in str(other.warnings)
