"""Random Logit: another class for each image, closed forms, shared passes."""

import pytest
import torch
from by_hand import seeded
from nets import unchanged
from scipy.stats import spearmanr
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.engine.forward import run_settings
from xcam.engine.shared import share_passes
from xcam.imaging import hash_images
from xcam.metrics import RandomLogit
from xcam.metrics.randomization.random_logit import draw_other_classes
from xcam.metrics.similarity import compare_maps
from xcam.models.toy import GapNet, LinearNet

IMAGES = seeded(4, 3, 8, 8)
TARGETS = [0, 1, 2, 3]


@pytest.mark.parametrize("similarity", ["ssim", "spearman"])
def test_map_that_knows_no_class_fails(similarity):
    explanation = xcam.explain(GapNet(), IMAGES, TARGETS, "sobel")
    scores = RandomLogit(similarity).score(GapNet(), IMAGES, explanation)
    assert_close(scores, torch.ones(4))


def test_linear_classes_of_opposite_weights():
    """Of two classes with opposite weights, one map is the other's negative."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2, bias=False)).eval()
    with torch.no_grad():
        net[1].weight[1] = -net[1].weight[0]
    explanation = xcam.explain(net, IMAGES, [0, 1, 0, 1], "input_x_gradient")
    signed = RandomLogit("spearman").score(net, IMAGES, explanation)
    assert_close(signed, -torch.ones(4))
    unsigned = RandomLogit("spearman", absolute=True).score(net, IMAGES, explanation)
    assert_close(unsigned, torch.ones(4))


def test_plain_loop():
    net = GapNet()
    explanation = xcam.explain(net, IMAGES, TARGETS, "saliency")
    with unchanged(net, IMAGES):
        scores = RandomLogit("spearman", seed=5).score(net, IMAGES, explanation)
    for index, state in enumerate(hash_images(IMAGES, 5)):
        others = [each for each in range(5) if each != TARGETS[index]]
        again = xcam.explain(net, IMAGES[index : index + 1], others[state % 4], "saliency")
        wanted = spearmanr(explanation.maps[index].flatten(), again.maps.flatten()).statistic
        assert scores[index].item() == pytest.approx(wanted, abs=1e-6)


def test_every_other_class_is_drawn():
    many = seeded(64, 3, 8, 8)
    explanation = xcam.explain(LinearNet(), many, 1, "saliency")
    drawn = draw_other_classes(LinearNet(), many, explanation, 0)
    assert set(drawn) == {0, 2, 3, 4}
    contrasted = xcam.explain(LinearNet(), many, 1, "saliency", contrast=3)
    assert set(draw_other_classes(LinearNet(), many, contrasted, 0)) == {0, 2, 4}


def test_maps_with_a_contrast_are_compared_with_such():
    net, explanation = GapNet(), xcam.explain(GapNet(), IMAGES, TARGETS, contrast=4)
    scores = RandomLogit().score(net, IMAGES, explanation)
    for index, other in enumerate(draw_other_classes(net, IMAGES, explanation, 0)):
        again = xcam.explain(net, IMAGES[index : index + 1], other, contrast=4)
        wanted = compare_maps(explanation.maps[index : index + 1], again.maps, "ssim", False)
        assert_close(scores[index : index + 1], wanted)


def test_settings_share_the_explanation():
    net = GapNet()
    explanation = xcam.explain(net, IMAGES, TARGETS, "saliency")
    with share_passes(IMAGES), run_settings() as runtime:
        for similarity in ("ssim", "spearman"):
            RandomLogit(similarity).score(net, IMAGES, explanation)
    assert (runtime.passes, runtime.shared_passes) == (2 * len(IMAGES), len(IMAGES))


def test_refuses_a_single_class():
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 1)).eval()
    explanation = xcam.explain(net, IMAGES, 0, "saliency")
    sentence = "^random_logit explains another class, and the model has 1 class; leave it out$"
    with pytest.raises(ValueError, match=sentence):
        RandomLogit().score(net, IMAGES, explanation)
