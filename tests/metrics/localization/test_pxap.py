"""Pixel-wise average precision against a plain computation, and where its value is known."""

import numpy as np
import pytest
import torch
from example_maps import blocks, noise, scores, smooth
from torch.testing import assert_close

from xcam.metrics.localization.pxap import PxAP


def result(metric, *args, **kwargs):
    return metric.finish(scores(metric, *args, **kwargs).double().mean(0)).item()


def plain(maps, masks, step):
    """Counts each threshold's pixels anew, in the order of the definition."""
    values, marks = [], []
    for map_, mask in zip(maps.double().numpy(), masks.numpy(), strict=True):
        map_ = map_ - map_.min()
        values.append((map_ / map_.max() if map_.max() else map_).ravel())
        marks.append(mask.ravel())
    values, marks = np.concatenate(values), np.concatenate(marks)
    area = recall_before = 0
    for threshold in [1.0, *np.arange(0, 1, step)[::-1]]:
        true = np.count_nonzero((values >= threshold) & (marks == 1))
        false = np.count_nonzero((values >= threshold) & (marks == 0))
        if true + false == 0:
            continue
        recall = true / np.count_nonzero(marks == 1)
        area += true / (true + false) * (recall - recall_before)
        recall_before = recall
    return 100 * area


class TestAgainstThePlainComputation:
    @pytest.mark.parametrize("step", [0.001, 0.01, 0.03, 1])
    @pytest.mark.parametrize("make", [noise, lambda *shape: smooth(*shape[:2])])
    def test_equal(self, step, make):
        maps, masks = make(5, 24, 24), blocks(5, 24)
        assert abs(result(PxAP(step), maps, masks) - plain(maps, masks, step)) < 1e-9

    def test_ignored_pixels(self):
        maps, masks = smooth(5, 24), blocks(5, 24)
        masks[:, 10:14] = 255
        assert abs(result(PxAP(), maps, masks) - plain(maps, masks, 0.001)) < 1e-9
        loud = maps.clone()
        loud[:, 12] = maps.mean()
        assert abs(result(PxAP(), loud, masks) - plain(maps, masks, 0.001)) < 1e-9

    def test_values_on_thresholds(self):
        maps = (torch.arange(11.0) / 10).expand(1, 11, 11).contiguous()
        masks = blocks(1, 11)
        assert abs(result(PxAP(0.1), maps, masks) - plain(maps, masks, 0.1)) < 1e-9

    def test_flat_among_others(self):
        maps, masks = smooth(4, 24), blocks(4, 24)
        maps[2] = 0.3
        assert abs(result(PxAP(), maps, masks) - plain(maps, masks, 0.001)) < 1e-9


class TestKnownValues:
    def test_mask_of_the_object_as_map_scores_100(self):
        masks = blocks(4, 20)
        assert result(PxAP(), masks.float(), masks) == 100

    def test_flat_map_gives_the_share_of_the_object(self):
        masks = blocks(4, 20)
        share = 100 * masks.float().mean().item()
        assert_close(result(PxAP(), torch.ones(4, 20, 20), masks), share, rtol=1e-6, atol=0)

    def test_two_levels(self):
        # Above: 2 of the object's 4 pixels and 2 others. Below: all 16 pixels.
        maps, masks = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool)
        maps[0, 0], masks[0, :2, :2] = 1, True
        assert_close(result(PxAP(), maps, masks), 100 * (2 / 4 * 0.5 + 4 / 16 * 0.5))

    def test_large_objects_weigh_more(self):
        masks = torch.zeros(2, 10, 10, dtype=torch.bool)
        masks[0, :8], masks[1, 0, 0] = True, True
        right_on_large = torch.stack([masks[0].float(), 1 - masks[1].float()])
        right_on_small = torch.stack([1 - masks[0].float(), masks[1].float()])
        assert result(PxAP(), right_on_large, masks) > result(PxAP(), right_on_small, masks)


def test_histograms_count_every_pixel_once():
    rows = scores(PxAP(), smooth(3, 24), blocks(3, 24))
    assert rows.shape == (3, 2, 1001)
    assert rows.sum((1, 2)).tolist() == [24 * 24] * 3
    assert rows[:, 0].sum(1).tolist() == blocks(3, 24).sum((1, 2)).tolist()
    maps = noise(3, 24, 24)
    assert scores(PxAP(), maps, blocks(3, 24))[:, :, -1].sum().item() == 3  # each map's maximum


def test_images_do_not_know_each_other():
    maps, masks = noise(5, 20, 20), blocks(5, 20)
    alone = [scores(PxAP(), maps[i : i + 1], masks[i : i + 1]) for i in range(5)]
    assert scores(PxAP(), maps, masks).equal(torch.cat(alone))


def test_finish_is_vectorized():
    rows = scores(PxAP(), smooth(6, 24), blocks(6, 24)).double()
    means = torch.stack([rows[:2].mean(0), rows.mean(0), rows[4:].mean(0)])
    each = torch.stack([PxAP().finish(mean) for mean in means])
    assert_close(PxAP().finish(means[:, None]), each[:, None])


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"step": 0}, r"step must be a finite number in \(0, 1\], such as 0.001, got 0"),
        ({"step": 1.5}, "got 1.5"),
        ({"resize": "nearest"}, "resize must be 'bilinear' or 'bicubic', got 'nearest'"),
    ],
)
def test_bad_fields(params, sentence):
    with pytest.raises(ValueError, match=sentence):
        PxAP(**params)


def test_bad_input():
    with pytest.raises(TypeError, match="truth must be a tensor of boxes"):
        scores(PxAP(), noise(2, 20, 20), None)
    with pytest.raises(ValueError, match="the map of image 0 is not finite"):
        scores(PxAP(), noise(2, 20, 20) * torch.tensor([torch.nan, 1])[:, None, None], None)


class TestProbabilities:
    """Maps far below 1, of which even thresholds see nothing."""

    def maps(self, low):
        maps, masks = torch.full((2, 8, 8), low), blocks(2, 8)
        maps[masks == 1] = 1e-3
        return maps, masks

    @pytest.mark.parametrize("low", [0.0, 1e-9, 1e-6])
    def test_perfect_map_is_perfect_by_logarithmic_thresholds(self, low):
        maps, masks = self.maps(low)
        assert result(PxAP(scaling="clip", thresholds="log"), maps, masks) == pytest.approx(100)
        share = 100 * float((masks == 1).float().mean())
        coarse = PxAP(scaling="clip", step=0.01)
        assert result(coarse, maps, masks) == pytest.approx(share)

    def test_values_below_the_lowest_threshold_are_counted(self):
        maps, masks = self.maps(0.0)
        maps[masks == 1] = 0
        maps[:, 0, 0] = 1e-3  # no object there
        found = result(PxAP(scaling="clip", thresholds="log"), maps, masks)
        assert masks[:, 0, 0].sum() == 0
        share = float((masks == 1).float().mean())
        assert found == pytest.approx(100 * share)

    def test_scale_of_a_map_counts_with_clip_alone(self):
        maps, masks = smooth(4, 24).abs() / 10, blocks(4, 24)
        larger = torch.stack([one * factor for one, factor in zip(maps, (1, 3, 2, 5), strict=True)])
        for scaling in ("minmax", "max"):
            found = [result(PxAP(scaling=scaling), each, masks) for each in (maps, larger)]
            assert found[0] == pytest.approx(found[1], abs=0.01)
        clipped = [result(PxAP(scaling="clip"), each, masks) for each in (maps, larger)]
        assert abs(clipped[0] - clipped[1]) > 0.5
