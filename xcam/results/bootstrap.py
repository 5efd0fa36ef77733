"""The bootstrap over images: intervals and tests of a result, from sums of its statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.special import ndtr, ndtri

from xcam.results.significance import compute_student_p

__all__ = ["Estimate", "Sample", "estimate", "finish_each", "jackknife", "resample"]

Finish: TypeAlias = Callable[[Tensor], Tensor]  # (…, *statistic shape) to (…), `Metric.finish`

_BLOCK = 2**18  # numbers handled at a time: 2 MB in double precision
_RESAMPLES = 128  # for which rows are read once


@dataclass(frozen=True, eq=False)
class Sample:
    """The rows of one statistic, added up by image.

    An image may have several dependent rows, such as one a class: images are drawn, not rows.

    Attributes:
        sums: (C, *statistic shape) floating point, the sum of each image's rows.
        sizes: (C,) float64, how many rows each image has; 0 where every one failed.
    """

    sums: Tensor
    sizes: Tensor

    @staticmethod
    def of(values: Tensor, images: Tensor | None = None, present: Tensor | None = None) -> Sample:
        """Add up rows by image.

        Args:
            values: (N, *statistic shape) floating point, a row each.
            images: (N,) int64, the number of each row's image, all of 0 … C − 1; a row an image
                by default.
            present: (N,) bool, the rows that count; all by default.

        Raises:
            ValueError: No rows, or not one image or one flag a row.
        """
        if not len(values):
            raise ValueError("there are no rows to draw from")
        for name, other in (("images", images), ("present", present)):
            if other is not None and other.shape != (len(values),):
                raise ValueError(
                    f"{name} must be ({len(values)},), one a row, got {tuple(other.shape)}"
                )
        sizes = torch.ones(len(values), dtype=torch.float64)
        if present is not None and not bool(present.all()):
            sizes = present.double()
            if bool(values[~present].count_nonzero()):  # else no copy, which may be of half a GB
                values = values.where(_align(present, values), 0)
        if images is None:
            return Sample(values, sizes)
        count = int(images.max()) + 1
        sums = values.new_zeros(count, *values.shape[1:]).index_add_(0, images, values)
        return Sample(sums, sizes.new_zeros(count).index_add_(0, images, sizes))

    def mean(self, weights: Tensor | None = None) -> Tensor:
        """Return means over all rows, in which an image may count several times or not at all.

        m = Σ_c w_c sums_c / Σ_c w_c sizes_c

        Args:
            weights: (R, C), one set of weights a mean; each image once by default.

        Returns:
            (R, *statistic shape) float64, or (*statistic shape) without weights; NaN of no rows.
        """
        if weights is None:
            return self.mean(torch.ones(1, len(self.sizes), dtype=torch.float64))[0]
        flat = self.sums.reshape(len(self.sums), -1)
        total = torch.zeros(len(weights), flat.shape[1], dtype=torch.float64)
        rows = torch.zeros(len(weights), dtype=torch.float64)
        for part in _split_rows(*flat.shape):
            drawn = weights[:, part].double()
            total.addmm_(drawn, flat[part].double())
            rows.addmv_(drawn, self.sizes[part])
        return (total / rows[:, None]).reshape(len(weights), *self.sums.shape[1:])


@dataclass(frozen=True, eq=False)
class Estimate:
    """A result with its bootstrap replicates; the difference of two is another.

    Attributes:
        value: The result on all images; NaN if it is undefined.
        replicates: (R,) float64, the result on each resample; NaN where it is undefined.
        jackknife: (C,) float64, the result without each image; NaN for an image without rows, and
            where it is undefined.
        images: How many images have rows.
    """

    value: float
    replicates: Tensor
    jackknife: Tensor
    images: int

    @property
    def undefined(self) -> int:
        """Return how many replicates an interval leaves out; 0 where the result itself is NaN."""
        return int((~self.replicates.isfinite()).sum()) if self.value == self.value else 0

    def __sub__(self, other: Estimate) -> Estimate:
        """Return the paired difference: both must come from the same images, resamples and seed."""
        return Estimate(
            self.value - other.value,
            self.replicates - other.replicates,
            self.jackknife - other.jackknife,
            min(self.images, other.images),
        )

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the BCa bootstrap interval (Efron, 1987, doi:10.1080/01621459.1987.10478410).

        Its ends are the quantiles Φ(z₀ + z / (1 − a z)) of the replicates, z = z₀ + Φ⁻¹(α), with
        the bias z₀ = Φ⁻¹(share of replicates below the value, ties half) and the acceleration
        a = Σ d³ / 6 (Σ d²)^1.5, d the jackknife's deviations from their mean. Where no image
        changes the result there is no acceleration, and the interval is the bias-corrected
        percentile one; where all replicates agree it is that point, as for no hit among a few
        images: the bootstrap cannot tell never from rarely. Replicates in which the result is
        undefined are left out.

        Args:
            level: The share of such intervals that hold the true result, in (0, 1).

        Returns:
            Low and high end; NaN for fewer than two images or an undefined result.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        draws = self._usable_replicates()
        if not len(draws):
            return float("nan"), float("nan")
        bias, acceleration = self._correct_for_skew(draws)
        z = bias + ndtri(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64))
        ends = ndtr(bias + z / (1 - acceleration * z).clamp(min=1e-12))
        low, high = torch.quantile(draws, ends).tolist()
        return low, high

    def p_value(self) -> float:
        """Return the two-sided p for a result of zero: 1 − the level whose interval reaches zero.

        The share of replicates below zero, (count + 1) / (R + 2) with ties half, is corrected as
        in `interval`, to no less than 2 / (R + 2). Where all replicates lie on one side, R is too
        few to tell how small p is, and it is that of `compute_student_p` if that is smaller. No p
        is below 2^(1 − C), the sign test's where all C images agree.
        """
        draws = self._usable_replicates()
        if not len(draws):
            return float("nan")
        bias, acceleration = self._correct_for_skew(draws)
        below = ((draws < 0).sum() + (draws <= 0).sum()) / 2
        z = ndtri((below.double() + 1) / (len(draws) + 2)) - bias
        tail = float(ndtr(z / (1 + acceleration * z).clamp(min=1e-12) - bias))
        p = max(2 * min(tail, 1 - tail), 2 / (len(draws) + 2))
        if below in (0, len(draws)):
            p = min(p, compute_student_p(self.value, self.jackknife))
        return max(p, 2.0 ** (1 - self.images))

    def _usable_replicates(self) -> Tensor:
        """Return the finite replicates; none if an interval cannot be estimated."""
        usable = self.replicates[self.replicates.isfinite()]
        return usable if self.images > 1 and self.value == self.value else usable[:0]

    def _correct_for_skew(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Return bias and acceleration; the bias stays finite if all draws lie on one side."""
        count = len(draws)
        below = ((draws < self.value).sum() + (draws <= self.value).sum()).double() / (2 * count)
        bias = ndtri(below.clamp(1 / (count + 1), count / (count + 1)))
        known = self.jackknife[self.jackknife.isfinite()]
        deviations = known.mean() - known
        scale = deviations.square().sum() ** 1.5
        acceleration = deviations.pow(3).sum() / (6 * scale) if scale > 0 else torch.zeros(())
        return bias, acceleration.double()


def estimate(
    samples: Sequence[Sample], finish: Finish, resamples: int = 2000, seed: int = 0
) -> list[Estimate]:
    """Estimate what `finish` computes from the mean of each sample.

    Args:
        samples: Statistics of the same C images; they share the resamples, and are thus paired.
        finish: From means (…, *statistic shape) to results (…).
        resamples: How many, R.
        seed: Of the resamples; they depend on it, on C and on R alone.

    Raises:
        ValueError: Samples of different numbers of images, or no resamples.
    """
    replicates = resample(samples, finish, resamples, seed)
    return [
        Estimate(
            float(finish(sample.mean())),
            draws.double(),
            jackknife(sample, finish),
            int((sample.sizes > 0).sum()),
        )
        for sample, draws in zip(samples, replicates, strict=True)
    ]


def resample(
    samples: Sequence[Sample], read: Finish, resamples: int = 2000, seed: int = 0
) -> list[Tensor]:
    """Apply `read` to the means over images drawn with replacement.

    Neither the R × C weights nor the R means are held at once: 50,000 images with 1000 numbers
    each take the memory of their rows and little more.

    Args:
        samples: See `estimate`.
        read: From means (r, *statistic shape) to (r, …).
        resamples: How many, R.
        seed: Of the resamples.

    Returns:
        (R, …) for each sample.

    Raises:
        ValueError: Samples of different numbers of images, or no resamples.
    """
    counts = {len(sample.sizes) for sample in samples}
    if len(counts) > 1:
        raise ValueError(f"samples must be of the same images, got {sorted(counts)} images")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    # Allocated whole at once: parts would fragment the memory that is freed in between.
    found: list[Tensor] = []
    done = 0
    for weights in (part for count in counts for part in _draw_weights(count, resamples, seed)):
        parts = [read(sample.mean(weights)) for sample in samples]
        found = found or [part.new_empty(resamples, *part.shape[1:]) for part in parts]
        for whole, part in zip(found, parts, strict=True):
            whole[done : done + len(part)] = part
        done += len(weights)
    return found


def jackknife(sample: Sample, finish: Finish) -> Tensor:
    """Compute the result without each image, (C,) float64; NaN for images without rows."""
    rows = sample.sizes.sum()
    total = sample.mean() * rows
    return _read_each_image(
        sample, lambda sums, sizes: finish((total - sums) / _align(rows - sizes, sums))
    )


def finish_each(sample: Sample, finish: Finish) -> Tensor:
    """Compute the result of each image alone, (C,) float64; NaN for images without rows."""
    return _read_each_image(sample, lambda sums, sizes: finish(sums / _align(sizes, sums)))


def _draw_weights(count: int, resamples: int, seed: int) -> Iterator[Tensor]:
    """Yield how often each of `count` images is drawn, (R, count) uint8, some resamples a part."""
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, resamples, _RESAMPLES):
        parts = [
            _count_draws(part.stop - part.start, count, generator)
            for part in _split_rows(min(_RESAMPLES, resamples - start), count)
        ]
        yield torch.cat(parts)


def _count_draws(resamples: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw images and count them: (resamples, count) uint8."""
    # An image is drawn 256 times, which would wrap to 0, with a chance of 1 / 256! only.
    drawn = torch.randint(count, (resamples, count), generator=generator)
    drawn += torch.arange(resamples)[:, None] * count
    times = drawn.flatten().bincount(minlength=resamples * count)
    return times.reshape(resamples, count).to(torch.uint8)


def _read_each_image(sample: Sample, read: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Apply `read` to sums and sizes of images, block by block; NaN for images without rows."""
    found = torch.empty(len(sample.sizes), dtype=torch.float64)
    for part in _split_rows(len(found), sample.sums[0].numel()):
        found[part] = read(sample.sums[part].double(), sample.sizes[part])
    return found.where(sample.sizes > 0, torch.nan)


def _align(sizes: Tensor, sums: Tensor) -> Tensor:
    """Return (C,) sizes in a shape that divides (C, *statistic shape) sums."""
    return sizes.reshape(-1, *[1] * (sums.ndim - 1))


def _split_rows(count: int, width: int) -> Iterator[slice]:
    """Split `count` rows of `width` numbers into slices of about a block of numbers."""
    step = max(1, _BLOCK // max(width, 1))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
