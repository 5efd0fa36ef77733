"""Bootstrap, jackknife and tests, against scipy, naive loops and known truth."""

from types import SimpleNamespace

import numpy as np
import peaks
import pytest
import scipy.stats
import torch

from xcam.results.bootstrap import Estimate, Sample, estimate, finish_each, jackknife, resample
from xcam.results.significance import adjust_holm, compute_student_p


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def itself(mean):
    return mean


def ratio(mean):
    return mean[..., 0] / mean[..., 1]


def best(mean):
    return mean.amax(-1)


def one(values, finish=itself, **options):
    (found,) = estimate([Sample.of(values)], finish, **options)
    return found


class TestSample:
    def test_rows_of_an_image_are_added_up(self):
        values = torch.tensor([[1.0, 10], [2, 20], [4, 40], [8, 80]])
        sample = Sample.of(values, torch.tensor([1, 0, 1, 2]))
        assert sample.sums.tolist() == [[2, 20], [5, 50], [8, 80]]
        assert sample.sizes.tolist() == [1, 2, 1]
        assert sample.mean().tolist() == [15 / 4, 150 / 4]

    def test_missing_rows_count_for_nothing(self):
        values = torch.tensor([1.0, torch.nan, 5.0])
        sample = Sample.of(values, present=torch.tensor([True, False, True]))
        assert sample.mean().item() == 3
        assert values[1].isnan()
        assert sample.sizes.tolist() == [1, 0, 1]

    def test_weighted_means_equal_a_loop(self):
        values = drawn(40, 3, 2)
        images = torch.arange(40) % 13
        weights = torch.randint(4, (5, 13), generator=torch.Generator().manual_seed(1)).double()
        got = Sample.of(values, images).mean(weights)
        for row, means in zip(weights, got, strict=True):
            repeated = [v for v, i in zip(values, images, strict=True) for _ in range(int(row[i]))]
            torch.testing.assert_close(means, torch.stack(repeated).double().mean(0))

    @pytest.mark.parametrize(
        ("values", "images", "sentence"),
        [
            (torch.zeros(0, 2), None, "there are no rows"),
            (torch.zeros(3), torch.zeros(2, dtype=torch.int64), r"images must be \(3,\)"),
        ],
    )
    def test_bad_input(self, values, images, sentence):
        with pytest.raises(ValueError, match=sentence):
            Sample.of(values, images)


class TestResampled:
    def test_each_resample_draws_as_many_images_as_there_are(self):
        sample = Sample.of(torch.eye(7))
        (counts,) = resample([sample], lambda mean: mean * 7, 500)
        assert counts.sum(1).allclose(torch.full((500,), 7.0).double())
        assert counts.frac().abs().minimum(1 - counts.frac().abs()).max() < 1e-9
        assert abs(counts.mean(0) - 1).max() < 0.2

    def test_samples_share_their_resamples(self):
        values = drawn(30)
        first, second = resample([Sample.of(values), Sample.of(2 * values + 1)], itself, 100)
        torch.testing.assert_close(second, 2 * first + 1)

    def test_many_images_and_many_resamples_go_in_parts(self):
        values = drawn(60_000, 2)
        (means,) = resample([Sample.of(values)], itself, 90)
        assert means.shape == (90, 2)
        torch.testing.assert_close(means.mean(0), values.double().mean(0), atol=1e-3, rtol=0)
        expected = values.double().std(0) / 60_000**0.5
        torch.testing.assert_close(means.std(0), expected, atol=0, rtol=0.3)

    def test_seed(self):
        sample = Sample.of(drawn(20))
        runs = [resample([sample], itself, 50, seed)[0] for seed in (0, 0, 1)]
        assert runs[0].equal(runs[1])
        assert not runs[0].equal(runs[2])

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"of the same images, got \[3, 4\] images"):
            resample([Sample.of(drawn(3)), Sample.of(drawn(4))], itself)
        with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
            resample([Sample.of(drawn(3))], itself, 0)

    @pytest.mark.skipif(not peaks.STATUS.exists(), reason="needs Linux's /proc")
    def test_holds_neither_all_weights_nor_all_means(self):
        """R × C weights would be 160 MB or more, R × S means 240 MB; 49 or 7 MB are usual."""
        code = (
            "import torch\n"
            "from xcam.results.bootstrap import Sample, resample\n"
            "best = lambda mean: mean.amax(-1)\n"
            "for images, width, resamples in ((40_000, 2, 4000), (100, 3000, 10_000)):\n"
            "    sample = Sample.of(torch.rand(images, width))\n"
            "    resample([sample], best, 2)\n"
            "    with rise():\n"
            "        resample([sample], best, resamples)\n"
        )
        assert [risen < 80 for risen in peaks.risen(code)] == [True, True]


class TestJackknife:
    @pytest.mark.parametrize("finish", [ratio, best])
    def test_equals_a_loop(self, finish):
        values, images = drawn(30, 2) + 0.5, torch.arange(30) % 11
        got = jackknife(Sample.of(values, images), finish)
        for image in range(11):
            left = values[images != image].double().mean(0)
            assert got[image].item() == pytest.approx(finish(left).item(), abs=1e-7)

    def test_image_without_rows_has_no_jackknife_value(self):
        sample = Sample.of(drawn(4), present=torch.tensor([True, True, False, True]))
        assert jackknife(sample, itself).isnan().tolist() == [False, False, True, False]
        assert finish_each(sample, itself).isnan().tolist() == [False, False, True, False]

    def test_results_of_single_images(self):
        sample = Sample.of(torch.tensor([[1.0, 2], [3, 4], [5, 8]]), torch.tensor([0, 1, 1]))
        assert finish_each(sample, ratio).tolist() == pytest.approx([0.5, 8 / 12])


class TestInterval:
    @pytest.mark.parametrize("level", [0.9, 0.95])
    @pytest.mark.parametrize("seed", range(3))
    def test_equals_scipy_on_the_same_resamples(self, seed, level):
        values = drawn(60, seed=seed).exp().double()
        found = one(values)
        same = SimpleNamespace(bootstrap_distribution=found.replicates.numpy())
        reference = scipy.stats.bootstrap(
            (values.numpy(),),
            np.mean,
            method="BCa",
            confidence_level=level,
            n_resamples=0,
            bootstrap_result=same,
        ).confidence_interval
        assert found.interval(level) == pytest.approx(tuple(reference), rel=1e-9)

    def test_bca_interval_is_close_to_that_of_scipy(self):
        values = drawn(60).exp().double()
        reference = scipy.stats.bootstrap(
            (values.numpy(),), np.mean, method="BCa", n_resamples=20_000, rng=0
        ).confidence_interval
        width = reference.high - reference.low
        found = one(values, resamples=20_000).interval()
        assert found == pytest.approx(tuple(reference), abs=0.03 * width)

    def test_quantiles_are_those_of_the_formula(self):
        """Written out with scipy's normal distribution and numpy's quantiles."""
        found = one(drawn(25, 2).square() + 0.1, ratio)
        draws, jack = found.replicates.numpy(), found.jackknife.numpy()
        bias = scipy.stats.norm.ppf((draws < found.value).mean())
        d = jack.mean() - jack
        a = (d**3).sum() / (6 * (d**2).sum() ** 1.5)
        z = bias + scipy.stats.norm.ppf([0.05, 0.95])
        ends = np.quantile(draws, scipy.stats.norm.cdf(bias + z / (1 - a * z)))
        assert found.interval(0.9) == pytest.approx(tuple(ends), rel=1e-9)

    @pytest.mark.parametrize(
        ("finish", "truth"), [(lambda mean: mean[..., 0], 1.0), (ratio, 2.0)], ids=["mean", "ratio"]
    )
    def test_covers_the_truth_as_often_as_it_says(self, finish, truth):
        """Exponential rows, 60 images: of 400 intervals of 95 %, 95 % ± 3.5 hold the truth."""
        generator = torch.Generator().manual_seed(3)
        held = 0
        for _ in range(400):
            rows = torch.empty(60, 2).exponential_(generator=generator)
            rows[:, 1] = rows[:, 1] * 0.25 + 0.25
            low, high = one(rows, finish, resamples=500).interval()
            held += low <= truth <= high
        assert 0.915 <= held / 400 <= 0.985

    def test_covers_the_best_of_many_thresholds(self):
        """Hits at 50 thresholds whose true rates peak at 0.7: the maximum of means is biased."""
        generator = torch.Generator().manual_seed(4)
        rates = 0.7 - 0.6 * (torch.linspace(0, 1, 50) - 0.4).abs()
        held = 0
        for _ in range(200):
            rows = (torch.rand(150, 1, generator=generator) < rates).float()
            low, high = one(rows, best, resamples=500).interval()
            held += low <= float(rates.max()) <= high
        assert held / 200 >= 0.9

    def test_rows_of_one_image_are_no_new_images(self):
        values = drawn(40)
        copies = Sample.of(values.repeat(5), torch.arange(40).repeat(5))
        (clustered,) = estimate([copies], itself)
        assert clustered.interval() == pytest.approx(one(values).interval(), abs=1e-6)
        apart = one(values.repeat(5)).interval()
        widths = [high - low for low, high in (clustered.interval(), apart)]
        assert widths[0] > 2 * widths[1]

    def test_equal_rows_give_a_point(self):
        found = one(torch.full((9,), 0.3))
        value = torch.tensor(0.3).double().item()
        assert (found.value, *found.interval()) == pytest.approx((value,) * 3, abs=1e-12)

    def test_undefined_resamples_are_left_out(self):
        """Ratios whose denominator is nought unless the first image is drawn."""
        rows = torch.tensor([[1.0, 1.0], [2, 0], [3, 0], [4, 0], [5, 0]])
        found = one(rows, lambda mean: torch.where(mean[..., 1] > 0, ratio(mean), torch.nan))
        assert found.replicates.isnan().any()
        assert found.images == 5
        low, high = found.interval()
        assert low <= found.value <= high

    @pytest.mark.parametrize("values", [torch.ones(1), torch.full((4,), torch.nan)])
    def test_no_uncertainty_to_be_had(self, values):
        assert np.isnan(one(values).interval()).all()
        assert np.isnan(one(values).p_value())

    def test_level(self):
        found = one(drawn(30))
        assert found.interval(0.5)[0] > found.interval(0.99)[0]
        with pytest.raises(ValueError, match="level must be between 0 and 1, got 95"):
            found.interval(95)


class TestDifference:
    def test_difference_equals_that_of_paired_rows(self):
        a, b = drawn(50), drawn(50, seed=1)
        first, second = estimate([Sample.of(a), Sample.of(b)], itself)
        paired, alone = first - second, one(a.double() - b.double())
        assert paired.interval() == pytest.approx(alone.interval(), abs=1e-9)
        assert paired.images == 50

    @pytest.mark.parametrize(
        ("values", "finish", "bias"),
        [
            (drawn(40).exp() - 1.55, itself, 0),
            (drawn(40, 6) - 0.5, best, -0.39),  # the best of several is above the truth
            (drawn(40, 6) - 0.57, best, -0.39),
        ],
    )
    def test_p_agrees_with_the_interval(self, values, finish, bias):
        """The interval of level 1 − p just reaches zero."""
        found = one(values, finish, resamples=20_000)
        below = (found.replicates < found.value).double().mean()
        assert torch.special.ndtri(below).item() == pytest.approx(bias, abs=0.03)
        p = found.p_value()
        assert 0.02 < p < 0.98
        low, high = found.interval(1 - p)
        assert min(abs(low), abs(high)) < 0.01 * (high - low)

    def test_p_is_uniform_without_a_difference(self):
        generator = torch.Generator().manual_seed(5)
        found = [
            one(torch.randn(40, generator=generator), resamples=500).p_value() for _ in range(300)
        ]
        assert scipy.stats.kstest(found, "uniform").pvalue > 0.01

    def test_p_is_close_to_the_t_test(self):
        values = torch.randn(200, generator=torch.Generator().manual_seed(7)) + 0.12
        expected = scipy.stats.ttest_1samp(values.numpy(), 0).pvalue
        assert one(values, resamples=20_000).p_value() == pytest.approx(expected, rel=0.15)

    def test_p_goes_on_where_resamples_end(self):
        """All of few resamples lie on one side, so that they only tell that p is small."""
        values = torch.randn(50, generator=torch.Generator().manual_seed(2)) + 1.5
        expected = scipy.stats.ttest_1samp(values.double().numpy(), 0).pvalue
        assert expected < 1e-8
        for sign in (1, -1):
            p = one(sign * values, resamples=998).p_value()
            assert expected * (1 - 1e-6) <= p < 30 * expected  # skewness may add, not take

    def test_p_is_at_most_what_resamples_tell(self):
        """None of 98 lies below zero, whatever the t-test says."""
        jackknifed = torch.linspace(0.8, 1.2, 50).double()
        found = Estimate(1.0, torch.linspace(0.5, 1.5, 98).double(), jackknifed, images=50)
        assert compute_student_p(1.0, jackknifed) > 2 / 100
        assert found.p_value() == pytest.approx(2 / 100)

    def test_p_is_no_smaller_than_the_images_allow(self):
        """All of C images agree: by the signs alone, p = 2^(1 − C)."""
        assert one(torch.tensor([1.0, 1.1, 1.2])).p_value() == 0.25
        assert one(torch.ones(12)).p_value() == 2**-11
        assert one(torch.zeros(30)).p_value() == pytest.approx(1)


class TestStudent:
    def test_equals_the_t_test_without_skewness(self):
        values = torch.tensor([-1.0, 0, 1, 2, 3, 4]).double()
        expected = scipy.stats.ttest_1samp(values.numpy(), 0).pvalue
        found = compute_student_p(float(values.mean()), jackknife(Sample.of(values), itself))
        assert found == pytest.approx(expected, rel=1e-9)

    def test_student_p_is_not_too_small_for_skewed_rows(self):
        """60 exponential rows without a difference: p < 0.001 in 0.58 % by the t-test."""
        generator = torch.Generator().manual_seed(8)
        rows = torch.empty(4000, 60).double().exponential_(generator=generator) - 1
        found = [
            compute_student_p(float(row.mean()), jackknife(Sample.of(row), itself)) for row in rows
        ]
        assert sum(p < 1e-3 for p in found) < 12


class TestHolm:
    def test_holm_adjustment_matches_a_hand_computed_one(self):
        got = adjust_holm([0.01, 0.04, 0.03, 0.005])
        assert got == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_stays_a_probability_and_leaves_nan(self):
        assert adjust_holm([0.9, float("nan"), 0.8])[::2] == [1, 1]
        assert np.isnan(adjust_holm([0.9, float("nan")])[1])
        assert adjust_holm([]) == []
