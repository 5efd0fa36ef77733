"""What counts as the model's decision: one rule, wherever a metric asks for it."""

import dataclasses

import pytest
import torch
from by_hand import explained, seeded
from torch import nn

from xcam.core import Explanation
from xcam.metrics import (
    Accuracy,
    Completeness,
    FaithfulnessCorrelation,
    FaithfulnessEstimate,
    Infidelity,
    MaskedAccuracy,
    Monotonicity,
    NegativePerturbation,
    NonSensitivity,
    PositivePerturbation,
    RemoveAndClassify,
    ROADLeRF,
    ROADMoRF,
    Selectivity,
    SensitivityN,
)
from xcam.metrics.inputs import read_target
from xcam.metrics.reading import is_among_top, make_hit_reader
from xcam.models.toy import LinearNet

CLASSES = torch.arange(5)
ONE_OF = torch.tensor([1.0, 0, 0, 0, 0])


class Silent(nn.Module):
    """Tells no class from another, whatever it sees."""

    def forward(self, images):
        return images.new_zeros(len(images), 5)


def among(logits, classes, top=1):
    return is_among_top(torch.tensor(logits), torch.tensor(classes), top).tolist()


def hits(logits, classes):
    logits = torch.tensor(logits)
    images = torch.zeros(len(logits), 1, 1, 1)
    target = read_target(explained(images[:, 0], classes), images)
    return make_hit_reader(target)(logits, torch.arange(len(logits))).tolist()


class TestAmongTop:
    def test_among_top_matches_topk_without_ties(self):
        logits = seeded(200, 7)
        classes = torch.arange(200) % 7
        for top in range(1, 7):
            expected = (logits.topk(top, 1).indices == classes[:, None]).any(1)
            assert is_among_top(logits, classes, top).equal(expected)

    def test_first_of_equal_logits_is_the_decision(self):
        equal = [[0.0, 0.0, 0.0]] * 3
        assert among(equal, [0, 1, 2]) == [True, False, False]
        assert among(equal, [0, 1, 2], top=2) == [True, True, False]
        assert torch.tensor(equal[0]).argmax() == 0

    @pytest.mark.parametrize("noise", [-2e-6, 0, 2e-6])
    def test_what_rounding_cannot_tell_is_equal(self, noise):
        logits = [[1.0, 1.0 + noise, 0.0], [0.0, 1.0, 1.0 + noise]]
        assert among(logits, [0, 1]) == [True, True]
        assert among(logits, [1, 2]) == [False, False]

    def test_rounding_is_a_share_of_the_size(self):
        assert among([[-3e5, -3e5 - 0.5], [-3e5, -3e5 - 50]], [1, 1]) == [False, False]
        assert among([[-3e5 - 0.5, -3e5], [-3e5 - 50, -3e5]], [1, 1]) == [False, True]
        assert among([[1.0, 1.001]] * 2, [0, 1]) == [False, True]


def test_maps_from_elsewhere_need_a_class():
    images = torch.zeros(2, 3, 4, 4)
    sentence = r"^this explanation names no class; pass target= to Explanation\.of$"
    for maps in (Explanation.of(seeded(2, 4, 4), images), Explanation.of(images, images)[:1]):
        with pytest.raises(ValueError, match=sentence):
            read_target(maps, images)
    known = Explanation.of(seeded(2, 4, 4), images, 3)
    assert read_target(known, images).classes.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("given", "got"), [(seeded(2, 4, 4), "Tensor"), ("gradcam", "str"), (None, "NoneType")]
)
def test_a_metric_is_called_with_an_explanation(given, got):
    sentence = (
        f"^a metric scores an explanation, got {got}; "
        r"make one of maps by xcam\.Explanation\.of\(maps, images\)$"
    )
    with pytest.raises(TypeError, match=sentence):
        Selectivity()(Silent(), torch.zeros(2, 3, 4, 4), given)


class TestHits:
    def test_highest_logit_is_the_hit(self):
        assert hits([[1.0, 2.0, 0.0]] * 3, [0, 1, 2]) == [0, 1, 0]

    def test_single_logit_is_a_hit_if_positive(self):
        assert hits([[0.5], [-0.5], [0.0]], [0, 0, 0]) == [1, 0, 0]


@pytest.mark.parametrize(
    "metric",
    [
        PositivePerturbation(),
        NegativePerturbation(),
        RemoveAndClassify(),
        ROADMoRF(),
        ROADLeRF(),
        Selectivity(output="accuracy"),
        Accuracy(),
        MaskedAccuracy(),
    ],
    ids=lambda metric: metric.spec.name,
)
def test_constant_model_is_right_about_one_class_of_five(metric):
    explanation: Explanation = explained(seeded(5, 12, 12, seed=1), CLASSES)
    truth = CLASSES if metric.spec.truth == "labels" else None
    rows = metric.score(Silent(), seeded(5, 3, 12, 12), explanation, truth)
    decided = rows[..., 1] if metric.spec.name.startswith(("road", "selectivity")) else rows
    assert decided.reshape(5, -1).mean(1).equal(ONE_OF)


@pytest.mark.parametrize(
    "metric",
    [
        Completeness(1e-3),
        Infidelity(scaled=False, n_samples=5, values="contribution"),
        FaithfulnessCorrelation(size=0.2, n_samples=5),
        FaithfulnessEstimate(step=1, output="logprob"),
        SensitivityN((0.1, 0.5), n_samples=5),
        Monotonicity(step=1, output="logit"),
        NonSensitivity(n_segments=64),
    ],
    ids=lambda metric: metric.spec.name,
)
def test_difference_of_scores_is_read_for_a_contrast(metric):
    """(W − W')·x of a linear net, whose contributions are right for it and wrong for W·x."""
    net, images, classes, contrast = LinearNet((1, 8, 8)), seeded(3, 1, 8, 8), [0, 3, 1], [4, 4, 0]
    with torch.no_grad():
        net.fc.weight[:, :20] = -1  # where no difference depends on the image
        if metric.spec.name == "monotonicity":  # no pixel speaks for the contrast
            net.fc.weight[[1, 3]] = net.fc.weight.amax(0)
            net.fc.weight[4] = net.fc.weight.amin(0)
            classes, contrast = [1, 3, 1], [4, 4, 4]
    difference = (net.fc.weight[classes] - net.fc.weight[contrast]).detach().view(3, 8, 8)
    alone = explained(difference * images[:, 0], classes)
    contrasted = dataclasses.replace(alone, contrast=torch.tensor(contrast))
    best = float(metric.spec.higher_is_better)
    scores = metric.score(net, images, contrasted)
    torch.testing.assert_close(scores, torch.full_like(scores, best), atol=1e-4, rtol=0)
    assert not scores.allclose(metric.score(net, images, alone), atol=1e-3)
