"""Score maps: min-max normalised in double precision, as what is thresholded was published."""

import numpy as np
import pytest
import torch
from by_hand import seeded
from example_maps import explanation_of
from torch.testing import assert_close

from xcam.metrics.localization.score_maps import make_score_maps


@pytest.mark.parametrize("size", [None, (24, 30)])
@pytest.mark.parametrize("resize", ["bilinear", "bicubic"])
def test_score_maps_are_normalized_in_double_precision(resize, size):
    """In single precision a value can come to lie on the other side of a threshold."""
    explanation = explanation_of(3 * seeded(4, 8, 10) - 1, size=size)
    images = torch.zeros(4, 3, *explanation.maps.shape[1:])
    found = make_score_maps(explanation, images, resize)
    assert found.dtype == torch.float64
    exact = explanation.maps.double()
    if resize == "bicubic" and size:
        wide = explanation.raw.double()[:, None]
        exact = torch.nn.functional.interpolate(wide, size, mode="bicubic")[:, 0]
    for one, values in zip(found, exact.numpy(), strict=True):
        wanted = (values - values.min()) / np.ptp(values)
        assert_close(one, torch.from_numpy(wanted), atol=1e-12, rtol=0)
