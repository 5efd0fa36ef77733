"""A model that fails while it is scored, and what it is left as."""

import pytest
from by_hand import seeded
from nets import mixed, unchanged
from torch import nn

import xcam
from xcam.models.toy import GapNet
from xcam.testing import quick

IMAGES = seeded(2, 3, 8, 8)
ONE_PASS = ["input_invariance", "random_logit"]
SEVERAL_PASSES = [
    *("completeness", "continuity", "efficient_mprt", "faithfulness_correlation", "infidelity"),
    *("max_sensitivity", "monotonicity", "mprt", "non_sensitivity", "sic", "smooth_mprt"),
    "relative_representation_stability",
]
CASES = [(name, 0) for name in ONE_PASS] + [(name, k) for name in SEVERAL_PASSES for k in (0, 1)]


class Failing(nn.Module):
    """Computes until the calls that are left, which its copies have in common, are used up."""

    left = None

    def __init__(self):
        super().__init__()
        self.net = GapNet()

    def forward(self, images):
        if Failing.left is not None:
            if not Failing.left:
                raise ConnectionError("the model has gone")
            Failing.left -= 1
        return self.net(images)


@pytest.mark.parametrize(("name", "left"), CASES)
def test_model_is_left_as_it_was_after_an_error(name, left, monkeypatch):
    net = mixed(Failing())
    explanation = xcam.explain(net, IMAGES, [0, 3], "saliency")
    monkeypatch.setattr(Failing, "left", left)
    metric = quick(xcam.get_metric(name)())
    with unchanged(net, IMAGES), pytest.raises((ConnectionError, xcam.errors.XcamError)):
        metric.score(net, IMAGES, explanation)
