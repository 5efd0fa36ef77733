"""Score maps: min-max normalised in double precision, as what is thresholded was published."""

import numpy as np
import pytest
import torch
from by_hand import seeded
from example_maps import explanation_of
from torch.testing import assert_close

from xcam.metrics.localization.score_maps import list_thresholds, make_score_maps


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


class TestScaling:
    MAPS = torch.tensor([[[0.5, -1.0], [0.25, 0.0]], [[2.0, 4.0], [3.0, 1.0]]])

    def scale(self, maps, scaling):
        return make_score_maps(
            explanation_of(maps), torch.zeros(len(maps), 3, *maps.shape[1:]), "bilinear", scaling
        ).tolist()

    def test_max_divides_by_the_highest_value_and_cuts(self):
        expected = [[[1, 0], [0.5, 0]], [[0.5, 1], [0.75, 0.25]]]
        assert self.scale(self.MAPS, "max") == expected

    def test_clip_leaves_values_in_the_unit_range(self):
        assert self.scale(self.MAPS, "clip") == [[[0.5, 0], [0.25, 0]], [[1, 1], [1, 1]]]

    def test_minmax_is_the_default(self):
        images = torch.zeros(2, 3, 2, 2)
        found = make_score_maps(explanation_of(self.MAPS), images, "bilinear")
        assert found.tolist() == self.scale(self.MAPS, "minmax")

    @pytest.mark.parametrize("scaling", ["minmax", "max", "clip"])
    def test_flat_map_is_zeros(self, scaling):
        assert self.scale(torch.full((1, 2, 2), 0.3), scaling) == [[[0, 0], [0, 0]]]

    def test_map_that_is_nowhere_positive_has_no_maximum_to_divide_by(self):
        negative = torch.tensor([[[-3.0, -1.0], [-2.0, 0.0]]])
        assert self.scale(negative, "max") == [[[0, 0], [0, 0]]]


def test_thresholds():
    assert list_thresholds(0.25) == [0, 0.25, 0.5, 0.75]
    assert list_thresholds(0.25, "log") == pytest.approx([0, 10**-5.25, 10**-3.5, 10**-1.75])
    released = sorted(10.0**-t for t in np.arange(0, 7, 0.007))
    assert released[-1] == 1
    assert list_thresholds(0.001, "log") == pytest.approx([0, *released[:-1]])
