"""Ranks, counts and the engine that removes pixels by them."""

import numpy as np
import pytest
import torch
from by_hand import seeded
from torch.testing import assert_close

import xcam
from xcam.core import Target
from xcam.engine.forward import run_settings
from xcam.errors import ModelOutputError
from xcam.metrics.reading import make_score_reader
from xcam.metrics.removal.pixels import (
    compute_area,
    count_at_fractions,
    count_by_step,
    rank_values,
    remove_progressively,
)
from xcam.models.toy import LinearNet, SmallCNN

IMAGES = seeded(3, 3, 8, 8)
MAPS = seeded(3, 8, 8, seed=1) - 0.5


class TestRanks:
    def test_zero_is_the_highest(self):
        assert rank_values(torch.tensor([[[0.1, 0.9], [0.5, -3.0]]])).tolist() == [[[2, 0], [1, 3]]]

    def test_ties_in_scan_order(self):
        maps = torch.tensor([[[1.0, 2.0, 1.0], [2.0, 1.0, 1.0]]])
        assert rank_values(maps).tolist() == [[[2, 0, 3], [1, 4, 5]]]
        large = torch.zeros(2, 100, 100)
        assert rank_values(large).equal(torch.arange(10_000).view(1, 100, 100).expand(2, -1, -1))

    def test_each_image_its_own(self):
        together = rank_values(MAPS)
        assert together.equal(torch.cat([rank_values(one[None]) for one in MAPS]))
        assert together.flatten(1).sort(1).values.equal(torch.arange(64).expand(3, -1))

    def test_elements(self):
        places = rank_values(seeded(2, 3, 4, 4))
        assert places.shape == (2, 3, 4, 4)
        assert places.flatten(1).sort(1).values.equal(torch.arange(48).expand(2, -1))


class TestCounts:
    @pytest.mark.parametrize(("step", "points"), [(1792, 29), (224, 225), (50_176, 2), (90_000, 2)])
    def test_points_at_224(self, step, points):
        counts = count_by_step(step, 224 * 224)
        assert len(counts) == points
        assert counts[0] == 0
        assert counts[-1] == 224 * 224

    def test_last_step_is_what_is_left(self):
        assert count_by_step(3, 8).tolist() == [0, 3, 6, 8]

    @pytest.mark.parametrize(("share", "step"), [(1 / 28, 1792), (1 / 224, 224)])
    def test_shares_are_the_published_steps_at_224(self, share, step):
        assert count_by_step(share, 224 * 224).equal(count_by_step(step, 224 * 224))

    @pytest.mark.parametrize("steps", [1, 3, 7, 28, 49, 224])
    @pytest.mark.parametrize("pixels", [1, 63, 1024, 299 * 299])
    def test_shares_give_as_many_points_at_any_size(self, steps, pixels):
        counts = count_by_step(1 / steps, pixels)
        assert len(counts) == steps + 1
        assert counts[-1] == pixels
        assert (counts - torch.linspace(0, pixels, steps + 1)).abs().max() <= 1
        assert (counts.diff() >= 0).all()

    def test_fractions_are_rounded_down_but_not_below_a_whole(self):
        assert count_at_fractions([0.1, 0.3, 0.7, 0.29], 100).tolist() == [10, 30, 70, 29]
        assert count_at_fractions([0.1, 0.9], 50_176).tolist() == [5017, 45_158]


class TestArea:
    def test_published_formula(self):
        curves = seeded(2, 5)
        by_hand = [(sum(row) - row[0] / 2 - row[-1] / 2) / 4 for row in curves.tolist()]
        assert_close(compute_area(curves), torch.tensor(by_hand))

    def test_area_under_a_line_and_a_constant_is_exact(self):
        assert compute_area(torch.linspace(0, 1, 29)) == pytest.approx(0.5)
        assert compute_area(torch.full((3, 2, 7), 0.25)).equal(torch.full((3, 2), 0.25))


class TestProgressive:
    def scores(self, net, counts, places=None, **options):
        target = Target.of([0, 1, 2], IMAGES)
        read = make_score_reader(target, "logit")
        return remove_progressively(
            net, IMAGES, rank_values(MAPS) if places is None else places, counts, read, **options
        )

    def test_removing_and_inserting_are_complements(self):
        net, counts = LinearNet(), count_by_step(10, 64)
        gone, seen = self.scores(net, counts), self.scores(net, counts, insert=True)
        bias, clean = net.fc.bias[:3, None], gone[:, :1]
        assert_close(gone + seen, (bias + clean).expand_as(gone))

    def test_counts_may_differ_between_images(self):
        net = LinearNet()
        counts = torch.tensor([[0, 5], [7, 64], [1, 2]])
        found = self.scores(net, counts)
        for image, own in enumerate(counts):
            assert_close(found[image], self.scores(net, own)[image])

    def test_pixels_of_a_rank_go_together(self):
        patches = torch.arange(4).view(1, 2, 2).repeat_interleave(4, 1).repeat_interleave(4, 2)
        found = self.scores(LinearNet(), torch.tensor([1]), patches.expand(3, -1, -1))
        without = IMAGES.clone()
        without[:, :, :4, :4] = 0
        assert_close(found[:, 0], LinearNet()(without)[range(3), range(3)])

    def test_elements_and_a_fill_for_each_image(self):
        values, fill = seeded(3, 3, 8, 8, seed=2), seeded(3, 3, 8, 8, seed=3)
        found = self.scores(LinearNet(), torch.tensor([20]), rank_values(values), fill=fill)
        limit = values.flatten(1).sort(1, descending=True).values[:, 20, None, None, None]
        pictures = torch.where(values > limit, fill, IMAGES)
        assert_close(found[:, 0], LinearNet()(pictures)[range(3), range(3)])

    @pytest.mark.parametrize("size", [1, 2, 5, 64])
    def test_size_of_chunks_changes_nothing(self, size):
        net, counts = SmallCNN(), count_by_step(5, 64)
        whole = self.scores(net, counts)
        with run_settings(batch_size=size):
            assert_close(self.scores(net, counts), whole, atol=1e-6, rtol=1e-6)

    def test_model_sees_each_pair_once_and_few_at_a_time(self):
        sizes = []
        net = LinearNet()
        net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
        with run_settings(batch_size=4):
            self.scores(net, count_by_step(10, 64))
        assert sizes == [4] * 6

    def test_output_that_is_not_finite(self):
        with pytest.raises(ModelOutputError, match="image 0 is not finite once"):
            self.scores(LinearNet(), count_by_step(10, 64), fill=torch.tensor(3e38))

    def test_class_that_the_model_has_not(self):
        read = make_score_reader(Target.of(9, IMAGES), "prob")
        with pytest.raises(ValueError, match="class 9 is out of range: the model has 5 classes"):
            remove_progressively(LinearNet(), IMAGES, rank_values(MAPS), torch.tensor([0]), read)


class TestSettings:
    metrics = pytest.mark.parametrize("name", ["deletion", "insertion", "pixel_flipping"])

    @metrics
    @pytest.mark.parametrize("step", [0, -1, 0.0, 1.5, float("nan")])
    def test_bad_step(self, name, step):
        words = r"step must be an int of at least 1 or a finite number in \(0, 1\], such as 0.0357"
        with pytest.raises(ValueError, match=words):
            xcam.get_metric(name)(step=step)

    @metrics
    @pytest.mark.parametrize("step", [True, "1792", None])
    def test_step_of_another_kind(self, name, step):
        with pytest.raises(TypeError, match=f"step must be an int of at least 1 or .*got {step!r}"):
            xcam.get_metric(name)(step=step)

    @metrics
    def test_bad_words(self, name):
        metric = xcam.get_metric(name)
        with pytest.raises(ValueError, match="output must be 'logit', 'prob' or 'logprob', got"):
            metric(output="softmax")
        with pytest.raises(ValueError, match="space must be 'input' or 'normalized', got 'pixel'"):
            metric(space="pixel")
        with pytest.raises(ValueError, match=r"fill must be 'zero', 'mean', 'blur'.* a tensor"):
            metric(fill="black")

    @pytest.mark.parametrize(
        "fractions", [(), (0.5, 0.1), (0.0, 0.5), (0.5, 1.0), (0.5, 0.5), (1,)]
    )
    def test_bad_fractions(self, fractions):
        for name in ("remove_and_classify", "perturbation_accuracy_positive"):
            with pytest.raises(
                ValueError, match=r"fractions must (ascend between 0 and 1|be a tuple)"
            ):
                xcam.get_metric(name)(fractions=fractions)

    def test_whole_number_of_numpy_is_a_number_of_pixels(self):
        assert count_by_step(np.int64(3), 8).tolist() == [0, 3, 6, 8]
