"""What a metric gives: a finite row an image for any maps, a result in its bounds, or a refusal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from xcam.core import Explanation
from xcam.errors import XcamError
from xcam.methods import Random, Saliency
from xcam.testing.checks.inputs import make_oblong_images
from xcam.testing.metric_subject import MetricSubject, make_truth
from xcam.testing.probe import ContractError
from xcam.testing.subject import Case

__all__ = ["CHECKS"]

_SLACK = 1e-5
"""How far beyond its bounds rounding may bring a result, as a share of them."""


def gives_a_row_an_image(subject: MetricSubject) -> None:
    """Require (B, …) finite floats, of one shape for every batch, without a graph."""
    shapes = set()
    everything = subject.build_case()
    for case in (everything, subject.build_case(everything.images[:1])):
        rows: object = subject.run(case)
        if not isinstance(rows, Tensor) or not rows.is_floating_point():
            kind = rows.dtype if isinstance(rows, Tensor) else type(rows).__name__
            raise ContractError(f"{subject.name} must give a floating-point tensor, got {kind}")
        if rows.ndim == 0 or len(rows) != len(case.images):
            raise ContractError(
                f"{subject.name} must give a row for each of {len(case.images)} images, got shape "
                f"{tuple(rows.shape)}"
            )
        if rows.requires_grad:
            raise ContractError(f"{subject.name} keeps a graph; score under torch.no_grad")
        subject.require_finite(rows, case, "Grad-CAM")
        shapes.add(tuple(rows.shape[1:]))
    if len(shapes) > 1:
        raise ContractError(f"{subject.name} gives rows whose shape depends on the batch")


def finishes_any_number_of_means(subject: MetricSubject) -> None:
    """Require (…) results of (…, *row) means: those of each mean, in float32 and float64."""
    rows, finish = subject.run(), subject.settings.finish
    means = torch.stack([rows.mean(0), rows[:2].mean(0), rows[2], rows[1:].mean(0)])
    each = [finish(mean) for mean in means]
    if any(result.shape != () for result in each):
        raise ContractError(
            f"{subject.name} must finish one mean to one number, got shape {tuple(each[0].shape)}"
        )
    for dtype in (means.dtype, torch.float64):
        results = finish(means.to(dtype).reshape(2, 2, *means.shape[1:]))
        if results.shape != (2, 2):
            raise ContractError(
                f"{subject.name} must finish (2, 2) means to (2, 2) results, got "
                f"{tuple(results.shape)}"
            )
        reference = torch.stack(each).view(2, 2).to(results.dtype)
        if not torch.allclose(results, reference, rtol=1e-5, atol=1e-6, equal_nan=True):
            raise ContractError(
                f"{subject.name} finishes several means otherwise than each of them"
            )


def draws_any_number_of_curves(subject: MetricSubject) -> None:
    """Require (P,) abscissae and (…, P) finite ordinates of `curve`, or nothing."""
    rows = subject.run()
    for means in (rows.mean(0), torch.stack([rows[:2].mean(0), rows.mean(0)])):
        curve = subject.settings.curve(means)
        if curve is None:
            return
        x, y = curve
        wanted = (*means.shape[: means.ndim - rows.ndim + 1], len(x)) if x.ndim == 1 else None
        if y.shape != wanted or not bool(x.isfinite().all() and y.isfinite().all()):
            raise ContractError(
                f"{subject.name} must draw finite (P,) over (…, P) curves, got "
                f"{tuple(x.shape)} and {tuple(y.shape)}"
            )


def stays_within_its_bounds(subject: MetricSubject) -> None:
    """Require results in `spec.bounds`, of each image and of all, for maps of many kinds.

    A ratio over a data set may be undefined, NaN, for one image; not for all together.
    """
    bounds = low, high = subject.settings.spec.bounds
    slack = _SLACK * max([1.0, *(abs(bound) for bound in bounds if math.isfinite(bound))])
    for what, case in _make_maps(subject):
        rows = subject.run(case)
        subject.require_finite(rows, case, what)
        results = subject.settings.finish(torch.cat([rows, rows.mean(0, keepdim=True)]))
        within = (results >= low - slack) & (results <= high + slack)
        within[:-1] |= results[:-1].isnan()
        if not bool(within.all()):
            raise ContractError(
                f"{subject.name} gives results from {float(results.min()):.3g} to "
                f"{float(results.max()):.3g} for {what}, but has spec.bounds={bounds}"
            )


def _make_maps(subject: MetricSubject) -> Iterator[tuple[str, Case]]:
    """Yield maps that point somewhere, nowhere, at one pixel, and away."""
    case = subject.build_case()
    maps = _get_maps(case)
    one = torch.zeros_like(maps)
    one[:, 5 * maps.shape[1] // 16, 7 * maps.shape[2] // 16] = 1.0
    yield "Grad-CAM", case
    yield "its negative", case.with_maps(-maps)
    yield "maps of huge values", case.with_maps(1e6 * maps)
    yield "random maps", subject.build_case(method=Random())
    yield "maps of zeros", case.with_maps(torch.zeros_like(maps))
    yield "maps of ones", case.with_maps(torch.ones_like(maps))
    yield "maps that are negative everywhere", case.with_maps(maps - maps.amax() - 1)
    yield "maps of one pixel", case.with_maps(one)


def _get_maps(case: Case) -> Tensor:
    if case.explanation is None:
        raise ValueError("a metric scores explained images; build the case by build_case")
    return case.explanation.maps


def takes_a_value_an_element(subject: MetricSubject) -> None:
    """Require finite rows for maps of a pixel method, whose `raw` is (B, C, H, W)."""
    case = subject.build_case(method=Saliency())
    subject.require_finite(subject.run(case), case, "a value an element")


def takes_maps_from_anywhere(subject: MetricSubject) -> None:
    """Require finite rows, or a refusal, for maps with a class and nothing else."""
    case = subject.build_case()
    classes = torch.tensor(case.classes, device=case.images.device)
    bare = Explanation.of(_get_maps(case), case.images, classes, method="by_hand")
    try:
        rows = subject.run(replace(case, explanation=bare))
    except (XcamError, TypeError, ValueError):
        return
    subject.require_finite(rows, case, "maps of an unknown method")


def takes_wide_and_tall_images(subject: MetricSubject) -> None:
    """Require finite rows for images that are not square, where the net takes them."""
    for images in make_oblong_images(subject):
        case = subject.build_case(images)
        height, width = images.shape[2:]
        subject.require_finite(subject.run(case), case, f"{height}×{width} images")


def refuses_maps_that_do_not_fit(subject: MetricSubject) -> None:
    """Require a refusal of maps of another size or number than the images, or not finite."""
    case = subject.build_case()
    maps = _get_maps(case)
    broken = maps.clone()
    broken[1, 3, 3] = math.nan
    _require_refusal(subject, case.with_maps(maps[:, :-1]), "maps of another size")
    _require_refusal(subject, case.with_maps(maps[:-1]), "maps of fewer images")
    _require_refusal(subject, case.with_maps(broken), "maps that are not finite")


def refuses_truth_that_does_not_fit(subject: MetricSubject) -> None:
    """Require a refusal of no truth, or of another number or size, or without sense."""
    if subject.settings.spec.truth == "none":
        return
    case = subject.build_case()
    for what, truth in (("no truth", None), *_break_truth(case.truth)):
        _require_refusal(subject, replace(case, truth=truth), what)


def _break_truth(truth: Tensor | None) -> Iterator[tuple[str, Tensor]]:
    if truth is None:
        return
    yield "truth of fewer images", truth[:-1]
    if truth.ndim == 1:
        yield "labels that are no integers", truth.float() + 0.5
    elif truth.is_floating_point():
        yield "boxes of three numbers", truth[..., :3]
        yield "an image without a box", torch.full_like(truth, math.nan)
        yield "boxes outside of the images", truth + 100 * truth[truth.isfinite()].max()
    else:
        yield "masks of another size", truth[:, :-1]
        yield "empty masks", torch.zeros_like(truth)


def _require_refusal(subject: MetricSubject, case: Case, what: str) -> None:
    try:
        subject.run(case)
    except (XcamError, TypeError, ValueError) as error:
        if "\n" not in str(error).strip() and str(error).strip():
            return
        raise ContractError(
            f"{subject.name} refuses {what} in more or less than a sentence"
        ) from error
    except Exception as error:
        raise ContractError(
            f"{subject.name} fails on {what} with {type(error).__name__}; refuse in a sentence"
        ) from error
    raise ContractError(f"{subject.name} takes {what}; refuse them in a sentence")


def takes_boxes_and_masks(subject: MetricSubject) -> None:
    """Require rows for where objects are, as boxes or as masks, whichever the data has."""
    if subject.settings.spec.truth not in ("boxes", "masks"):
        return
    case = subject.build_case()
    boxes, masks = (make_truth(k, case.images, case.classes) for k in ("boxes", "masks"))
    if boxes is None or masks is None:
        return
    kinds = (("boxes", boxes), ("one box each", boxes[:, 0]), ("masks", masks))
    for what, truth in (*kinds, ("masks of bools", masks == 1)):
        subject.require_finite(subject.run(replace(case, truth=truth)), case, what)


CHECKS = (
    gives_a_row_an_image,
    finishes_any_number_of_means,
    draws_any_number_of_curves,
    stays_within_its_bounds,
    takes_a_value_an_element,
    takes_maps_from_anywhere,
    takes_wide_and_tall_images,
    refuses_maps_that_do_not_fit,
    refuses_truth_that_does_not_fit,
    takes_boxes_and_masks,
)
