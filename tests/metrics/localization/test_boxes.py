"""Boxes from thresholded maps against a plain computation, and where the value is known."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from example_maps import blocks, explanation_of, noise, scores, smooth
from torch.testing import assert_close

from xcam.imaging import normalize
from xcam.metrics.localization.boxes import MaxBoxAcc, MaxBoxAccV2
from xcam.metrics.localization.score_maps import make_score_maps
from xcam.metrics.localization.truth import find_boxes, pad_boxes

BOTH = [MaxBoxAcc(), MaxBoxAccV2()]


def result(metric, *args, **kwargs):
    return metric.finish(scores(metric, *args, **kwargs).double().mean(0)).item()


def plain_iou(one, other):
    """Of boxes whose far corners are pixels of theirs."""
    width = min(one[2], other[2]) - max(one[0], other[0]) + 1
    height = min(one[3], other[3]) - max(one[1], other[1]) + 1
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (one, other)]
    return shared / (sum(areas) - shared)


def plain_boxes(map_, threshold, every):
    height, width = map_.shape
    image = (map_ * 255).astype(np.uint8)
    _, binary = cv2.threshold(image, int(threshold * float(image.max())), 255, cv2.THRESH_BINARY)
    contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return [(0, 0, 0, 0)]
    if not every:
        contours = [max(contours, key=cv2.contourArea)]
    rectangles = [cv2.boundingRect(contour) for contour in contours]
    return [(x, y, min(x + w, width - 1), min(y + h, height - 1)) for x, y, w, h in rectangles]


def plain(maps, boxes, deltas, step, every):
    """The accuracy (deltas, thresholds), threshold after threshold, image after image."""
    thresholds = np.arange(0, 1, step)
    correct = np.zeros((len(deltas), len(thresholds)))
    for map_, truth in zip(maps.double().numpy(), boxes, strict=True):
        map_ = map_ - map_.min()
        map_ = map_ / map_.max() if map_.max() else map_
        truth = [[int(value) for value in box] for box in truth.tolist() if box[0] == box[0]]
        for column, threshold in enumerate(thresholds):
            found = plain_boxes(map_, threshold, every)
            best = max(plain_iou(box, true) for box in found for true in truth)
            correct[:, column] += [best >= delta for delta in deltas]
    return 100 * correct / len(maps)


def some_boxes(count, size, least):
    """One, two or three boxes an image, not at whole pixels, with sides of `least` and more."""
    generator = torch.Generator().manual_seed(1)
    low = torch.rand(count, 3, 2, generator=generator) * size / 2
    high = low + least + torch.rand(count, 3, 2, generator=generator) * (size / 2 - least)
    boxes = torch.cat([low, high], 2)
    boxes[::2, 2] = boxes[::4, 1] = torch.nan
    return boxes


def maps_of_all_kinds(size):
    """Smooth, noisy, with holes, with few levels, flat."""
    few = (smooth(3, size, seed=3) * 2).round()
    flat = torch.full((1, size, size), 0.7)
    return torch.cat([smooth(6, size), noise(2, size, size), -smooth(3, size), few, flat])


class TestAgainstThePlainComputation:
    @pytest.mark.parametrize("step", [0.001, 0.03])
    def test_largest_contour(self, step):
        maps, boxes = maps_of_all_kinds(20), some_boxes(15, 20, 5)
        metric = MaxBoxAcc(step, delta=0.4)
        expected = plain(maps, boxes, [0.4], step, every=False)
        assert 0 < expected.max() < 100
        assert abs(result(metric, maps, boxes) - expected.max()) < 1e-9

    @pytest.mark.parametrize("step", [0.001, 0.03])
    def test_every_contour(self, step):
        maps, boxes = maps_of_all_kinds(20), some_boxes(15, 20, 5)
        metric = MaxBoxAccV2(step)
        expected = plain(maps, boxes, [0.3, 0.5, 0.7], step, every=True)
        assert 0 < expected.max(1)[2] < expected.max(1)[0]
        assert abs(result(metric, maps, boxes) - expected.max(1).mean()) < 1e-9

    @pytest.mark.parametrize(("cls", "every"), [(MaxBoxAcc, False), (MaxBoxAccV2, True)])
    def test_curve(self, cls, every):
        maps, boxes = maps_of_all_kinds(20), some_boxes(15, 20, 5)
        mean = scores(cls(), maps, boxes).double().mean(0)
        abscissae, ordinates = cls().curve(mean)
        deltas = [0.3, 0.5, 0.7] if every else [0.5]
        expected = plain(maps, boxes, deltas, 0.001, every).mean(0)
        places = (abscissae * 1000).round().int()  # the steps between them repeat the last
        assert_close(ordinates, torch.from_numpy(expected[places]))
        assert len(abscissae) == 255
        assert_close(
            ordinates.repeat_interleave(torch.diff(places, append=torch.tensor([1000]))),
            torch.from_numpy(expected),
        )


class TestKnownValues:
    @pytest.mark.parametrize("metric", BOTH, ids=repr)
    def test_mask_of_the_object_as_map_scores_100(self, metric):
        masks = blocks(4, 30)
        assert result(metric, masks.float(), masks) == 100

    @pytest.mark.parametrize("metric", BOTH, ids=repr)
    def test_flat_map_finds_nothing(self, metric):
        assert result(metric, torch.ones(4, 30, 30), blocks(4, 30)) == 0

    def test_one_threshold_for_all_images(self):
        """Each image has a threshold at which its box is right, but no two have the same."""
        maps, truth = torch.zeros(2, 40, 40), torch.zeros(2, 40, 40, dtype=torch.bool)
        maps[:, 5:35, 5:35], maps[:, 10:15, 10:15] = 0.5, 1
        truth[0, 5:35, 5:35] = truth[1, 10:15, 10:15] = True
        rows = scores(MaxBoxAcc(), maps, truth)
        assert MaxBoxAcc().finish(rows.mean(0)).item() == 50
        assert MaxBoxAcc().finish(rows).tolist() == [100, 100]  # chosen for each: too much
        rows = scores(MaxBoxAccV2(), maps, truth)
        assert MaxBoxAccV2().finish(rows.mean(0)).item() == 50
        assert MaxBoxAccV2().finish(rows).mean().item() == 100

    def test_one_threshold_for_each_delta(self):
        # Above 0: the box and three columns more, IoU 11·8 / 11·11 = 8/11. Above 0.5: a part of it.
        maps = torch.zeros(1, 40, 40)
        maps[0, 10:20, 10:20] = 0.4
        maps[0, 14:17, 14:17] = 1
        truth = find_boxes(torch.tensor([[10.0, 10, 17, 20]]), torch.zeros(1, 3, 40, 40))
        assert_close(result(MaxBoxAccV2(deltas=(8 / 11,)), maps, truth), 100.0)
        assert result(MaxBoxAccV2(deltas=(8 / 11 + 1e-9,)), maps, truth) == 0
        assert_close(result(MaxBoxAccV2(deltas=(8 / 11, 0.9)), maps, truth), 50.0)

    def test_largest_or_any(self):
        maps = torch.zeros(1, 40, 40)
        maps[0, 2:20, 2:20], maps[0, 30:35, 30:35] = 1, 0.9
        truth = torch.tensor([[30.0, 30, 35, 35]])
        assert result(MaxBoxAcc(), maps, truth) == 0
        assert result(MaxBoxAccV2(), maps, truth) == 100

    def test_holes_have_boxes(self):
        maps = torch.zeros(1, 40, 40)
        maps[0, 2:38, 2:38], maps[0, 10:20, 10:20] = 1, 0
        truth = torch.tensor([[9.0, 9, 21, 21]])  # the pixels around the hole
        assert result(MaxBoxAcc(), maps, truth) == 0
        assert result(MaxBoxAccV2(), maps, truth) == 100

    def test_any_true_box(self):
        maps = torch.zeros(2, 40, 40)
        maps[0, 10:20, 10:20] = maps[1, 20:30, 25:35] = 1
        truth = pad_boxes([[[0, 0, 5, 5], [10, 10, 20, 20]], [[25, 20, 35, 30]]])
        assert result(MaxBoxAcc(), maps, truth) == 100
        assert result(MaxBoxAcc(), maps, truth[:, :1]) == 50


class TestStatistic:
    def test_shapes(self):
        for metric, deltas in zip(BOTH, (1, 3), strict=True):
            rows = scores(metric, smooth(3, 24), blocks(3, 24))
            assert rows.shape == (3, deltas, 255)
            assert rows.dtype == torch.float32

    @pytest.mark.parametrize("metric", BOTH, ids=repr)
    def test_images_do_not_know_each_other(self, metric):
        maps, masks = smooth(5, 24), blocks(5, 24)
        alone = [scores(metric, maps[i : i + 1], masks[i : i + 1]) for i in range(5)]
        assert scores(metric, maps, masks).equal(torch.cat(alone))

    @pytest.mark.parametrize("metric", BOTH, ids=repr)
    def test_finish_is_vectorized(self, metric):
        rows = scores(metric, smooth(6, 24), blocks(6, 24)).double()
        means = torch.stack([rows[:2].mean(0), rows.mean(0), rows[4:].mean(0)])
        each = torch.stack([metric.finish(mean) for mean in means])
        assert_close(metric.finish(means[:, None]), each[:, None])

    @pytest.mark.parametrize("metric", BOTH, ids=repr)
    def test_scale_of_the_map_does_not_matter(self, metric):
        maps, masks = (smooth(3, 24) * 64).round(), blocks(3, 24)
        assert scores(metric, 0.5 * maps - 16, masks).equal(scores(metric, maps, masks))


class TestScoreMaps:
    IMAGES = torch.zeros(2, 3, 28, 28)

    def test_bilinear_are_the_maps(self):
        explanation = explanation_of(noise(2, 7, 7), size=(28, 28))
        found = make_score_maps(explanation, self.IMAGES, "bilinear")
        assert_close(found, normalize(explanation.maps.double()))

    def test_bicubic_as_opencv(self):
        raw = noise(2, 7, 7)
        found = make_score_maps(explanation_of(raw, size=(28, 28)), self.IMAGES, "bicubic")
        for map_, image in zip(found, raw.double().numpy(), strict=True):
            expected = cv2.resize(image, (28, 28), interpolation=cv2.INTER_CUBIC)
            assert_close(map_, normalize(torch.from_numpy(expected)), rtol=0, atol=1e-6)

    def test_map_at_the_input_size(self):
        explanation = explanation_of(noise(2, 28, 28))
        maps = [make_score_maps(explanation, self.IMAGES, how) for how in ("bilinear", "bicubic")]
        assert maps[0].equal(maps[1])

    @pytest.mark.parametrize("resize", ["bilinear", "bicubic"])
    def test_rounding_is_no_shape(self, resize):
        maps = make_score_maps(
            explanation_of(torch.full((2, 7, 7), 0.1), size=(28, 28)), self.IMAGES, resize
        )
        assert not maps.any()

    def test_bicubic_of_channels(self):
        channels = noise(2, 3, 7, 7)
        summed = explanation_of(channels.sum(1), size=(28, 28))
        found = make_score_maps(replace(summed, raw=channels), self.IMAGES, "bicubic")
        assert_close(found, make_score_maps(summed, self.IMAGES, "bicubic"))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: MaxBoxAcc(step=0),
            r"step must be a finite number in \(0, 1\], such as 0.001, got 0",
        ),
        (
            lambda: MaxBoxAcc(delta=0),
            r"delta must be a finite number in \(0, 1\], such as 0.5, got 0",
        ),
        (lambda: MaxBoxAcc(resize="nearest"), "'bilinear' or 'bicubic', got 'nearest'"),
        (
            lambda: MaxBoxAccV2(step=2),
            r"step must be a finite number in \(0, 1\], such as 0.001, got 2",
        ),
        (
            lambda: MaxBoxAccV2(deltas=(0.3, 30)),
            r"deltas must be .*each a finite number in \(0, 1\].*got \(0.3, 30\)",
        ),
        (lambda: MaxBoxAccV2(deltas=()), "deltas must be at least one IoU"),
    ],
)
def test_bad_fields(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize("metric", BOTH, ids=repr)
def test_bad_input(metric):
    with pytest.raises(TypeError, match="truth must be a tensor of boxes"):
        scores(metric, noise(2, 20, 20), None)
    masks = blocks(2, 20)
    masks[1] = 0
    with pytest.raises(ValueError, match="image 1 has no object pixel"):
        scores(metric, noise(2, 20, 20), masks)
    maps = noise(2, 20, 20)
    maps[1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="the map of image 1 is not finite"):
        scores(metric, maps, blocks(2, 20))


def test_boxes_of_maps_divided_by_their_maximum():
    """What is negative is cut: the object's own shape is left, at every threshold."""
    maps = torch.zeros(1, 16, 16)
    maps[:, 4:12, 4:12] = 1.0
    maps[:, :, 13:] = -1.0
    truth = torch.tensor([[[4.0, 4.0, 12.0, 12.0]]])
    rows = {
        scaling: scores(MaxBoxAcc(step=0.1, delta=0.8, scaling=scaling), maps, truth)
        for scaling in ("max", "minmax")
    }
    assert rows["max"].all()
    assert not rows["minmax"][0, 0, 0]  # at 0 the zeros around it are above, too
    with pytest.raises(ValueError, match="scaling must be 'minmax' or 'max', got 'clip'"):
        MaxBoxAcc(scaling="clip")
