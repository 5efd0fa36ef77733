"""Metrics of random weights and classes give what Quantus recorded.

The layers are made anew without chance, and there are two classes: nothing is left to draw.
"""

import json

import pytest
import torch
from record_quantus import FILE, Randomization
from torch.testing import assert_close

import xcam
from xcam.metrics import MPRT, EfficientMPRT, RandomLogit, SmoothMPRT

RECORDED = json.loads(FILE.read_text("utf-8"))["randomization"]
TOP_DOWN = ("6", "2", "0")


def score(metric):
    net, images = Randomization.build(), Randomization.images
    gradient = xcam.get_method("saliency")(reduce="sum")
    explanation = xcam.explain(net, images, Randomization.classes, gradient)
    return metric.score(net, images, explanation)


def stack(name, layers):
    return torch.tensor([RECORDED[name][layer] for layer in layers]).T


@pytest.mark.parametrize(
    ("order", "layers"),
    [("top_down", TOP_DOWN), ("bottom_up", TOP_DOWN[::-1]), ("independent", TOP_DOWN)],
)
def test_mprt(order, layers):
    found = score(MPRT(order, n_steps=None))
    assert_close(found, stack(f"mprt_{order}", layers), atol=1e-4, rtol=0)


def test_smooth_mprt_of_a_copy_without_noise():
    """Its cascade starts at the image, and the only copy has no noise."""
    found = score(SmoothMPRT("bottom_up", n_samples=1, noise=0.0))
    assert_close(found, stack("smooth_mprt", TOP_DOWN[::-1]), atol=1e-4, rtol=0)


def test_efficient_mprt():
    assert score(EfficientMPRT()).tolist() == pytest.approx(RECORDED["efficient_mprt"], abs=1e-5)


def test_random_logit():
    """By ranks: its SSIM is that of the flattened map."""
    assert score(RandomLogit("spearman")).tolist() == pytest.approx(
        RECORDED["random_logit"], abs=1e-5
    )
