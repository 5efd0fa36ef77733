"""Similarity of maps: scipy's and scikit-image's numbers, flat maps, equal values."""

import numpy as np
import pytest
import torch
from by_hand import seeded
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch.testing import assert_close

from xcam.metrics.similarity import compare_maps, correlate_ranks, measure_overlap, measure_ssim

FIRST, SECOND = seeded(3, 9, 12) - 0.5, seeded(3, 9, 12, seed=1) - 0.5
FLAT = torch.full((3, 9, 12), 0.3)


@pytest.mark.parametrize("digits", [8, 1])
def test_ranks_match_scipy(digits):
    """With one digit many values are equal, and share their ranks."""
    pairs = [FIRST.round(decimals=digits), (FIRST + SECOND).round(decimals=digits)]
    wanted = [spearmanr(a.flatten(), b.flatten())[0] for a, b in zip(*pairs, strict=True)]
    assert_close(correlate_ranks(*pairs), torch.tensor(wanted).float())


def test_ssim_matches_scikit_image():
    wanted = []
    for pair in zip(FIRST, FIRST + SECOND, strict=True):
        a, b = (each.numpy() / np.abs(each.numpy()).max() for each in pair)
        span = max(a.max(), b.max()) - min(a.min(), b.min())
        wanted.append(structural_similarity(a.astype(float), b.astype(float), data_range=span))
    assert_close(measure_ssim(FIRST, FIRST + SECOND), torch.tensor(wanted).float())


@pytest.mark.parametrize("similarity", ["spearman", "ssim"])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_scale_makes_no_difference(similarity, scale):
    assert_close(compare_maps(FIRST, scale * FIRST, similarity, False), torch.ones(3))
    assert_close(compare_maps(FIRST, -scale * FIRST, similarity, True), torch.ones(3))
    assert (compare_maps(FIRST, -scale * FIRST, similarity, False) < 0.9).all()


@pytest.mark.parametrize("similarity", ["spearman", "ssim"])
def test_flat_maps(similarity):
    assert compare_maps(FLAT, 0 * FLAT, similarity, False).tolist() == [1, 1, 1]
    assert compare_maps(FLAT, FIRST, similarity, False).abs().max() < 0.1


def test_small_maps_have_small_windows():
    maps = seeded(2, 1, 2)
    assert_close(measure_ssim(maps, maps), torch.ones(2))


def test_overlap_by_sets():
    found = measure_overlap(FIRST, SECOND, 0.25)
    for a, b, each in zip(FIRST, SECOND, found.tolist(), strict=True):
        tops = [set(np.argsort(-one.flatten().numpy())[:27].tolist()) for one in (a, b)]
        assert each == pytest.approx(len(tops[0] & tops[1]) / 27)
    assert measure_overlap(FLAT, FLAT, 0.1).tolist() == [1, 1, 1]
    assert measure_overlap(FIRST, FIRST, 0.0).tolist() == [1, 1, 1]
