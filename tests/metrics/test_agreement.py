"""Agreement with a reference method."""

import pytest
import torch
from by_hand import seeded
from scipy.stats import spearmanr
from torch.testing import assert_close

import xcam
from xcam.errors import UnknownNameError
from xcam.metrics import Agreement
from xcam.metrics.similarity import measure_overlap
from xcam.models.toy import GapNet

NET, IMAGES, TARGETS = GapNet(), seeded(3, 3, 8, 8), [0, 3, 1]


@pytest.mark.parametrize("similarity", ["spearman", "ssim", "overlap"])
def test_with_itself(similarity):
    explanation = xcam.explain(NET, IMAGES, TARGETS, "saliency")
    scores = Agreement("saliency", similarity).score(NET, IMAGES, explanation)
    assert_close(scores, torch.ones(3))


def test_of_foreign_maps_with_a_method():
    maps = seeded(3, 8, 8, seed=1)
    explanation = xcam.Explanation.of(maps, IMAGES, TARGETS)
    reference = xcam.explain(NET, IMAGES, TARGETS, "saliency").maps
    scores = Agreement(xcam.get_method("saliency")()).score(NET, IMAGES, explanation)
    wanted = [spearmanr(a.flatten(), b.flatten())[0] for a, b in zip(maps, reference, strict=True)]
    assert_close(scores, torch.tensor(wanted).float())
    overlap = Agreement("saliency", "overlap", top=0.25).score(NET, IMAGES, explanation)
    assert_close(overlap, measure_overlap(maps, reference, 0.25))


def test_magnitudes():
    maps = -xcam.explain(NET, IMAGES, TARGETS, "input_x_gradient").maps
    explanation = xcam.Explanation.of(maps, IMAGES, TARGETS)
    for absolute, wanted in ((False, -1.0), (True, 1.0)):
        metric = Agreement("input_x_gradient", absolute=absolute)
        assert_close(metric.score(NET, IMAGES, explanation), torch.full((3,), wanted))


def test_refuses_what_is_no_method():
    with pytest.raises(TypeError, match=r"^agreement: reference must be the name .* got 5$"):
        Agreement(5)
    explanation = xcam.explain(NET, IMAGES, TARGETS, "saliency")
    with pytest.raises(UnknownNameError, match="gradcam"):
        Agreement("gradcamm").score(NET, IMAGES, explanation)


def test_reference_that_knows_no_class_is_refused_for_a_contrast():
    net, images = GapNet(), seeded(2, 3, 8, 8)
    explanation = xcam.explain(net, images, 1, "gradcam", contrast=4)
    Agreement("saliency").score(net, images, explanation)
    with pytest.raises(ValueError, match=r"the reference of agreement, center_gaussian, gives the"):
        Agreement("center_gaussian").score(net, images, explanation)
