"""The map's highest pixel, its mass and its highest ranks, against the object."""

import math
from dataclasses import replace

import pytest
import torch
from example_maps import blocks, explanation_of, noise, scores
from torch.testing import assert_close

from xcam.errors import XcamWarning
from xcam.metrics.localization.pointing import (
    AttributionLocalization,
    EnergyPointingGame,
    Focus,
    PointingGame,
    RelevanceRank,
    TopKIntersection,
)

GAMES = [
    PointingGame(),
    PointingGame(per_class=False),
    EnergyPointingGame(),
    RelevanceRank(),
    AttributionLocalization(),
    TopKIntersection(),
    TopKIntersection(top=25, weighted=True),
]


def one_hot_maps(points, height=40, width=50):
    maps = torch.zeros(len(points), height, width)
    for map_, (y, x) in zip(maps, points, strict=True):
        map_[y, x] = 1
    return maps


def boxes(count, *corners):
    return torch.tensor([corners] * count, dtype=torch.float32)


class TestPointingGame:
    # The object is the pixel (20, 25): 9² + 12² = 15², and nearer by a pixel either way.
    @pytest.mark.parametrize(
        ("point", "hit"),
        [((20, 25), 1), ((20, 39), 1), ((20, 40), 0), ((11, 13), 0), ((12, 13), 1), ((11, 14), 1)],
    )
    def test_strictly_within_fifteen_pixels(self, point, hit):
        metric = PointingGame(per_class=False)
        assert scores(metric, one_hot_maps([point]), boxes(1, 25, 20, 26, 21)).tolist() == [hit]

    @pytest.mark.parametrize(("x", "hit"), [(9, 0), (10, 1), (14, 1), (15, 0)])
    def test_tolerance_of_one_is_the_object_itself(self, x, hit):
        metric = PointingGame(tolerance=1, per_class=False)
        found = scores(metric, one_hot_maps([(3, x)]), boxes(1, 10, 0, 15, 8))
        assert found.tolist() == [hit]

    def test_any_object_counts(self):
        truth = torch.tensor([[[0.0, 0, 1, 1], [40, 30, 45, 35]]])
        metric = PointingGame(tolerance=2, per_class=False)
        for y, x, hit in [(0, 1, 1), (31, 44, 1), (20, 20, 0)]:
            assert scores(metric, one_hot_maps([(y, x)]), truth).item() == hit

    def test_against_a_plain_loop(self):
        maps, masks = noise(12, 30, 30), blocks(12, 30)
        found = scores(PointingGame(tolerance=6, per_class=False), maps, masks)
        expected = []
        for map_, mask in zip(maps, masks, strict=True):
            y, x = divmod(int(map_.argmax()), 30)
            near = min(math.dist((y, x), pixel) for pixel in mask.nonzero().tolist())
            expected.append(float(near < 6))
        assert found.tolist() == expected
        assert 0 < sum(expected) < 12

    def test_first_of_equal_maxima(self):
        maps = one_hot_maps([(0, 30)])
        maps[0, 30, 30] = maps[0, 0, 5] = 1
        metric = PointingGame(tolerance=1, per_class=False)
        assert scores(metric, maps, boxes(1, 5, 0, 6, 1)).item() == 1
        assert scores(metric, maps, boxes(1, 30, 0, 31, 1)).item() == 0

    def test_mean_over_classes(self):
        # Class 3: 1 of 3. Class 0: 1 of 1. The others have no image.
        maps = one_hot_maps([(0, 0), (30, 30), (30, 30), (0, 0)])
        truth = boxes(4, 0, 0, 2, 2)
        rows = scores(PointingGame(), maps, truth, classes=[3, 3, 3, 0])
        assert rows.shape == (4, 2, 5)
        assert rows.sum(0).tolist() == [[1, 0, 0, 1, 0], [1, 0, 0, 3, 0]]
        assert_close(PointingGame().finish(rows.mean(0)).item(), (1 / 3 + 1) / 2)
        plain = PointingGame(per_class=False)
        rows = scores(plain, maps, truth, classes=[3, 3, 3, 0])
        assert plain.finish(rows.mean(0)).item() == 0.5

    def test_finish_is_vectorized(self):
        rows = scores(PointingGame(), noise(9, 20, 20), blocks(9, 20))
        means = torch.stack([rows[:3].mean(0), rows.mean(0), rows[4:].mean(0)])
        each = torch.stack([PointingGame().finish(mean) for mean in means])
        assert_close(PointingGame().finish(means[:, None]), each[:, None])

    def test_no_classes_known(self):
        unknown = replace(explanation_of(noise(1, 8, 8)), logits=None)
        images, truth = torch.zeros(1, 3, 8, 8), boxes(1, 0, 0, 8, 8)
        with pytest.raises(ValueError, match=r"number of classes.*use per_class=False"):
            PointingGame().score(None, images, unknown, truth)
        nameless = replace(explanation_of(noise(1, 8, 8)), target=None)
        with pytest.raises(ValueError, match="a callable target has none"):
            PointingGame().score(None, images, nameless, truth)
        for explanation in (unknown, nameless):
            hits = PointingGame(per_class=False).score(None, images, explanation, truth)
            assert hits.tolist() == [1]

    def test_class_that_does_not_exist(self):
        wrong = replace(explanation_of(noise(1, 8, 8)), target=torch.tensor([5]))
        with pytest.raises(ValueError, match="target 5 is out of range: the model has 5"):
            PointingGame().score(None, torch.zeros(1, 3, 8, 8), wrong, boxes(1, 0, 0, 8, 8))

    @pytest.mark.parametrize("tolerance", [0, -1, float("nan")])
    def test_bad_tolerance(self, tolerance):
        words = f"tolerance must be a finite number above 0, such as 15.0, got {tolerance}"
        with pytest.raises(ValueError, match=words):
            PointingGame(tolerance=tolerance)


class TestEnergyPointingGame:
    def test_share_of_the_positive_mass(self):
        maps = torch.tensor([[[3.0, 1, -8], [0, 4, 0]], [[1, 1, 1], [1, 1, 1]]])
        found = scores(EnergyPointingGame(), maps, boxes(2, 0, 0, 2, 1))
        assert_close(found, torch.tensor([4 / 8, 2 / 6]))

    def test_no_mass(self):
        maps = torch.stack([noise(6, 6).abs(), -noise(6, 6).abs(), torch.zeros(6, 6)])
        with pytest.warns(XcamWarning) as notes:
            found = scores(EnergyPointingGame(), maps, boxes(3, 0, 0, 2, 2))
        assert found[0] > 0
        assert found[1:].tolist() == [0, 0]
        assert [str(each.message)[:7] for each in notes] == ["image 1", "image 2"]

    def test_ends(self):
        maps, truth = one_hot_maps([(1, 1), (8, 8)]), boxes(2, 0, 0, 2, 2)
        assert scores(EnergyPointingGame(), maps, truth).tolist() == [1, 0]


class TestRelevanceRank:
    def test_share_of_the_highest(self):
        maps = torch.tensor([[[5.0, 1, -8], [-1, 4, 0]]])
        for corners, share in [((0, 0, 2, 1), 1 / 2), ((0, 0, 1, 1), 1), ((2, 0, 3, 2), 0)]:
            assert scores(RelevanceRank(), maps, boxes(1, *corners)).item() == share

    def test_against_a_plain_loop(self):
        maps, masks = noise(10, 30, 30), blocks(10, 30)
        expected = []
        for map_, mask in zip(maps.flatten(1).tolist(), masks.flatten(1).tolist(), strict=True):
            order = sorted(range(900), key=lambda pixel: -map_[pixel])[: sum(mask)]
            expected.append(sum(mask[pixel] for pixel in order) / sum(mask))
        assert_close(scores(RelevanceRank(), maps, masks), torch.tensor(expected))

    def test_equal_pixels_row_after_row(self):
        maps = torch.zeros(1, 4, 4)
        maps[0, 3, 3] = 1  # then the first row but for its last pixel
        assert scores(RelevanceRank(), maps, boxes(1, 0, 0, 4, 1)).item() == 3 / 4


class TestAttributionLocalization:
    def test_share_of_the_mass_over_the_share_of_the_pixels(self):
        maps = torch.tensor([[[1.0, 2, -8], [-1, 5, 0]]])
        for corners, ratio in [((0, 0, 2, 1), 3 / 8 * 3), ((0, 1, 3, 2), 5 / 8 * 2)]:
            found = scores(AttributionLocalization(), maps, boxes(1, *corners))
            assert found.item() == pytest.approx(ratio)

    def test_flat_map_is_one_for_any_object(self):
        flat = torch.full((6, 20, 20), 0.3)
        assert_close(scores(AttributionLocalization(), flat, blocks(6, 20)), torch.ones(6))

    def test_without_weights_it_is_the_energy_pointing_game(self):
        maps, masks = noise(6, 30, 30), blocks(6, 30)
        plain = scores(AttributionLocalization(weighted=False), maps, masks)
        assert plain.equal(scores(EnergyPointingGame(), maps, masks))


def test_focus_is_the_mass_on_the_tiles_of_the_class():
    maps = torch.tensor([[[1.0, 2, -8, 0], [3, 0, 4, -1]]])  # four tiles of 1×2
    tiles = torch.tensor([[[1, 1, 0, 0], [0, 0, 1, 1]]], dtype=torch.uint8)
    assert scores(Focus(), maps, tiles).item() == pytest.approx(7 / 10)
    assert scores(Focus(), torch.ones(1, 2, 4), tiles).item() == 0.5


class TestTopKIntersection:
    def test_share_of_the_highest(self):
        maps = torch.tensor([[[5.0, 1, -8], [-1, 4, 0]]])
        for top, share in [(1, 1), (2, 1 / 2), (3, 2 / 3), (6, 1 / 3), (100, 1 / 3), (0.34, 1 / 2)]:
            found = scores(TopKIntersection(top), maps, boxes(1, 0, 0, 2, 1))
            assert found.item() == pytest.approx(share)

    def test_of_the_size_of_the_object_it_is_the_relevance_rank(self):
        maps, masks = noise(6, 30, 30), blocks(6, 30)
        for one, mask in zip(maps, masks, strict=True):
            k = int(mask.sum())
            found = scores(TopKIntersection(top=k), one[None], mask[None])
            assert_close(found, scores(RelevanceRank(), one[None], mask[None]))

    def test_weighted_is_one_by_chance(self):
        maps, masks = noise(200, 30, 30), blocks(200, 30)
        found = scores(TopKIntersection(top=90, weighted=True), maps, masks)
        assert float(found.mean()) == pytest.approx(1, abs=4 * float(found.std()) / 200**0.5)

    def test_default_is_about_a_thousand_pixels_at_224(self):
        maps = torch.arange(224 * 224.0).view(1, 224, 224)
        found = scores(TopKIntersection(), maps, boxes(1, 0, 223, 224, 224))
        assert found.item() == pytest.approx(224 / 1003)


class TestAll:
    @pytest.mark.parametrize("metric", GAMES, ids=repr)
    def test_ignored_pixels_are_not_there(self, metric):
        maps, masks = noise(6, 60, 60), blocks(6, 60)
        masks[:, :, 50:] = 255
        loud = maps.clone()
        loud[:, :, 50:] += 100
        assert scores(metric, loud, masks).equal(scores(metric, maps, masks))
        assert not scores(metric, loud, masks == 1).equal(scores(metric, maps, masks == 1))

    @pytest.mark.parametrize("metric", GAMES, ids=repr)
    def test_boxes_and_masks_agree(self, metric):
        maps, truth = noise(3, 20, 30), torch.tensor([[2.0, 3, 9, 7], [0, 0, 30, 1], [5, 5, 6, 6]])
        masks = torch.zeros(3, 20, 30, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, truth.int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
        assert scores(metric, maps, truth).equal(scores(metric, maps, masks))

    @pytest.mark.parametrize("metric", GAMES, ids=repr)
    def test_images_do_not_know_each_other(self, metric):
        maps, masks = noise(5, 20, 20), blocks(5, 20)
        together = scores(metric, maps, masks, classes=range(5))
        alone = [scores(metric, maps[i : i + 1], masks[i : i + 1], classes=[i]) for i in range(5)]
        assert together.equal(torch.cat(alone))

    @pytest.mark.parametrize(
        "metric", [PointingGame(per_class=False), RelevanceRank(), TopKIntersection()], ids=repr
    )
    def test_flat_map_is_noted(self, metric):
        with pytest.warns(XcamWarning, match="image 0: the map is flat, its pixels are taken row"):
            found = scores(metric, torch.ones(1, 20, 20), boxes(1, 0, 0, 20, 1))
        assert found.item() == 1

    @pytest.mark.parametrize("metric", GAMES, ids=repr)
    def test_bad_input(self, metric):
        with pytest.raises(TypeError, match="truth must be a tensor of boxes"):
            scores(metric, noise(2, 20, 20), None)
        with pytest.raises(ValueError, match="the map of image 1 is not finite"):
            scores(metric, noise(2, 20, 20) / torch.tensor([1, 0])[:, None, None], blocks(2, 20))
        with pytest.raises(ValueError, match=r"maps must be \(2, 20, 20\)"):
            metric.score(
                None, torch.zeros(2, 3, 20, 20), explanation_of(noise(2, 20, 21)), blocks(2, 20)
            )
