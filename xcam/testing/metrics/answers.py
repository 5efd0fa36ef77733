"""What comes back: a finite row an image, for any maps, and a result within its bounds."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from xcam.core import Explanation, Metric
from xcam.errors import XcamError
from xcam.methods import Random, Saliency
from xcam.testing.device import LeftDeviceError, StayOnDevice
from xcam.testing.metrics.case import Case, made, scored
from xcam.testing.probe import ContractError, ProbeNet, pictures

__all__ = ["CHECKS"]

_SLACK = 1e-5
"""How far beyond its bounds rounding may bring a result, as a share of them."""


def gives_a_row_an_image(metric: Metric) -> None:
    """(B, …) finite floats, of one shape for every batch, without a graph."""
    shapes = set()
    for count in (5, 1):
        case = made(metric, pictures(count))
        rows = scored(metric, case)
        if not isinstance(rows, Tensor) or not rows.is_floating_point():
            kind = rows.dtype if isinstance(rows, Tensor) else type(rows).__name__
            raise ContractError(f"{metric.spec.name} must give a floating-point tensor, got {kind}")
        if rows.ndim == 0 or len(rows) != count:
            raise ContractError(
                f"{metric.spec.name} must give a row for each of {count} images, got shape "
                f"{tuple(rows.shape)}"
            )
        if rows.requires_grad:
            raise ContractError(f"{metric.spec.name} keeps a graph; score under torch.no_grad")
        _require_finite(metric, rows, "Grad-CAM")
        shapes.add(tuple(rows.shape[1:]))
    if len(shapes) > 1:
        raise ContractError(f"{metric.spec.name} gives rows whose shape depends on the batch")


def _require_finite(metric: Metric, rows: Tensor, what: str) -> None:
    if not bool(rows.isfinite().all()):
        raise ContractError(f"{metric.spec.name} gives rows that are not finite for {what}")


def finishes_any_number_of_means(metric: Metric) -> None:
    """`finish` of (…, *row) gives (…) results: those of each mean, in float32 and float64."""
    rows = scored(metric, made(metric))
    means = torch.stack([rows.mean(0), rows[:2].mean(0), rows[2], rows[3:].mean(0)])
    each = [metric.finish(mean) for mean in means]
    if any(result.shape != () for result in each):
        raise ContractError(
            f"{metric.spec.name} must finish one mean to one number, got shape "
            f"{tuple(each[0].shape)}"
        )
    for dtype in (means.dtype, torch.float64):
        shaped = means.to(dtype).reshape(2, 2, *means.shape[1:])
        results = metric.finish(shaped)
        if results.shape != (2, 2):
            raise ContractError(
                f"{metric.spec.name} must finish (2, 2) means to (2, 2) results, got "
                f"{tuple(results.shape)}"
            )
        reference = torch.stack(each).view(2, 2).to(results.dtype)
        if not torch.allclose(results, reference, rtol=1e-5, atol=1e-6):
            raise ContractError(
                f"{metric.spec.name} finishes several means otherwise than each of them"
            )


def draws_any_number_of_curves(metric: Metric) -> None:
    """`curve` gives (P,) abscissae and (…, P) finite ordinates, or nothing."""
    rows = scored(metric, made(metric))
    for means in (rows.mean(0), torch.stack([rows[:2].mean(0), rows.mean(0)])):
        curve = metric.curve(means)
        if curve is None:
            return
        x, y = curve
        wanted = (*means.shape[: means.ndim - rows.ndim + 1], len(x)) if x.ndim == 1 else None
        if y.shape != wanted or not bool(x.isfinite().all() and y.isfinite().all()):
            raise ContractError(
                f"{metric.spec.name} must draw finite (P,) over (…, P) curves, got "
                f"{tuple(x.shape)} and {tuple(y.shape)}"
            )


def stays_within_its_bounds(metric: Metric) -> None:
    """The result of each image, and of all, for maps of many kinds, lies in `spec.bounds`.

    A ratio over a data set may be undefined, NaN, for one image; not for all together.
    """
    low, high = metric.spec.bounds
    slack = _SLACK * max([1.0, *(abs(bound) for bound in (low, high) if math.isfinite(bound))])
    for what, case in _kinds(metric):
        rows = scored(metric, case)
        _require_finite(metric, rows, what)
        results = metric.finish(torch.cat([rows, rows.mean(0, keepdim=True)]))
        within = (results >= low - slack) & (results <= high + slack)
        within[:-1] |= results[:-1].isnan()
        if not bool(within.all()):
            raise ContractError(
                f"{metric.spec.name} gives results from {float(results.min()):.3g} to "
                f"{float(results.max()):.3g} for {what}, but has spec.bounds={metric.spec.bounds}"
            )


def _kinds(metric: Metric) -> Iterator[tuple[str, Case]]:
    """Maps that point somewhere, nowhere, at one pixel, and away."""
    case = made(metric)
    maps = case.explanation.maps
    one = torch.zeros_like(maps)
    one[:, 5, 7] = 1.0
    yield "Grad-CAM", case
    yield "its negative", case.with_maps(-maps)
    yield "maps of huge values", case.with_maps(1e6 * maps)
    yield "random maps", made(metric, method=Random())
    yield "maps of zeros", case.with_maps(torch.zeros_like(maps))
    yield "maps of ones", case.with_maps(torch.ones_like(maps))
    yield "maps that are negative everywhere", case.with_maps(maps - maps.amax() - 1)
    yield "maps of one pixel", case.with_maps(one)


def takes_a_value_an_element(metric: Metric) -> None:
    """Maps of a pixel method, whose `raw` is (B, C, H, W)."""
    rows = scored(metric, made(metric, method=Saliency()))
    _require_finite(metric, rows, "a value an element")


def takes_maps_from_anywhere(metric: Metric) -> None:
    """Maps with a class and nothing else: a row an image, or xcam's own sentence."""
    case = made(metric)
    known = case.explanation
    bare = Explanation.of(known.maps, case.images, known.target, method="by_hand")
    try:
        rows = scored(metric, Case(case.images, bare, case.truth))
    except (XcamError, TypeError, ValueError):
        return
    _require_finite(metric, rows, "maps of an unknown method")


def takes_grey_images(metric: Metric) -> None:
    """Images of one channel."""
    _require_finite(metric, scored(metric, made(metric, pictures(2, channels=1))), "grey images")


def takes_wide_and_tall_images(metric: Metric) -> None:
    """Images that are not square."""
    for size in ((16, 24), (24, 16)):
        rows = scored(metric, made(metric, pictures(2, size=size)))
        _require_finite(metric, rows, f"{size[0]}×{size[1]} images")


def takes_black_images(metric: Metric) -> None:
    """Black images, and a constant grey."""
    images = torch.stack([torch.zeros(3, 16, 16), torch.full((3, 16, 16), 0.5)])
    case = made(metric, pictures(2))
    flat = Case(images, case.explanation, case.truth)
    _require_finite(metric, scored(metric, flat), "images of one colour")


def stays_on_device(metric: Metric) -> None:
    """No `.cpu()`, `.to("cpu")`, `.numpy()`, or `.tolist()` of floats; rows on the device."""
    case = made(metric)
    try:
        with StayOnDevice():
            rows = scored(metric, case)
    except LeftDeviceError as error:
        raise ContractError(
            f"{metric.spec.name} moves values to the host by Tensor.{error}; compute with tensors "
            "on the images' device"
        ) from error
    if rows.device != case.images.device:
        raise ContractError(f"{metric.spec.name} gives rows on another device than the images'")


def costs_what_it_says(metric: Metric) -> None:
    """No pass if `spec.cost` is "0", and some otherwise."""
    net = ProbeNet()
    scored(metric, made(metric), net)
    free = metric.spec.cost.strip() == "0"
    if free != (net.fuse.passes == 0):
        raise ContractError(
            f"{metric.spec.name} makes {net.fuse.passes} passes, but has "
            f"spec.cost={metric.spec.cost!r}"
        )


CHECKS = (
    gives_a_row_an_image,
    finishes_any_number_of_means,
    draws_any_number_of_curves,
    stays_within_its_bounds,
    takes_a_value_an_element,
    takes_maps_from_anywhere,
    takes_grey_images,
    takes_wide_and_tall_images,
    takes_black_images,
    stays_on_device,
    costs_what_it_says,
)
