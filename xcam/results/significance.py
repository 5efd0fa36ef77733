"""p-values smaller than resamples can tell, and for many tests at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["adjust_holm", "compute_student_p"]


def compute_student_p(value: float, jackknife: Tensor) -> float:
    """Compute the two-sided p for a result of zero without resamples, however small.

    Student's t = value / s has C − 1 degrees of freedom, s² = (C − 1)/C Σ d² with the jackknife's
    deviations d from their mean (Tukey, 1958); of a mean it is the t-test. Skewness makes that too
    sure far out, so that t is also taken as t + a + 2 a t² + 4/3 a² t³, a = Σ d³ / 6 (Σ d²)^1.5
    (Hall, 1992, J. R. Stat. Soc. B 54:221), and the larger of both p counts.

    Args:
        value: The result on all images.
        jackknife: (C,) floating point, the result without each image; NaN is left out.

    Returns:
        p, as small as a float gets; 0 where no image changes a result that is not zero.
    """
    from scipy.special import stdtr

    known = jackknife[jackknife.isfinite()].double()
    deviations = known.mean() - known
    squares = deviations.square().sum()
    if squares == 0:
        return float(value == 0)
    t = value / ((len(known) - 1) / len(known) * squares).sqrt()
    a = deviations.pow(3).sum() / (6 * squares**1.5)
    corrected = t + a + 2 * a * t**2 + 4 / 3 * a**2 * t**3
    least = float(torch.minimum(t.abs(), corrected.abs()))
    return 2 * float(stdtr(len(known) - 1, -least))


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p-values of a table of tests (Holm, 1979); NaN stays, and counts as no test.

    The i-th smallest of m becomes the largest (m − j + 1) p_j of j ≤ i, at most 1: calling all
    below 0.05 significant errs in any of them with a probability of at most 5 %.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p == p)
    adjusted = [float("nan")] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = largest
    return adjusted
