"""What a metric is given is what it needs, or it says so in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from xcam.core import Metric
from xcam.errors import XcamError
from xcam.testing.metrics.case import Case, made, scored, truth_of
from xcam.testing.probe import ContractError

__all__ = ["CHECKS"]


def refuses_maps_that_do_not_fit(metric: Metric) -> None:
    """Maps of another size or number than the images, or not finite."""
    case = made(metric)
    maps = case.explanation.maps
    broken = maps.clone()
    broken[1, 3, 3] = math.nan
    _refused(metric, case.with_maps(maps[:, :-1]), "maps of another size")
    _refused(metric, case.with_maps(maps[:-1]), "maps of fewer images")
    _refused(metric, case.with_maps(broken), "maps that are not finite")


def refuses_truth_that_does_not_fit(metric: Metric) -> None:
    """No truth where it is needed, of another number or size, or without sense."""
    if metric.spec.truth == "none":
        return
    case = made(metric)
    for what, truth in (("no truth", None), *_wrong(case.truth)):
        _refused(metric, replace(case, truth=truth), what)


def _wrong(truth: Tensor | None) -> Iterator[tuple[str, Tensor]]:
    if truth is None:
        return
    yield "truth of fewer images", truth[:-1]
    if truth.ndim == 1:
        yield "labels that are no integers", truth.float() + 0.5
    elif truth.is_floating_point():
        yield "boxes of three numbers", truth[..., :3]
        yield "an image without a box", torch.full_like(truth, math.nan)
        yield "boxes outside of the images", truth + 100
    else:
        yield "masks of another size", truth[:, :-1]
        yield "empty masks", torch.zeros_like(truth)


def _refused(metric: Metric, case: Case, what: str) -> None:
    try:
        scored(metric, case)
    except (XcamError, TypeError, ValueError) as error:
        if "\n" not in str(error).strip() and str(error).strip():
            return
        raise ContractError(
            f"{metric.spec.name} refuses {what} in more or less than a sentence"
        ) from error
    except Exception as error:
        raise ContractError(
            f"{metric.spec.name} fails on {what} with {type(error).__name__}; refuse in a sentence"
        ) from error
    raise ContractError(f"{metric.spec.name} takes {what}; refuse them in a sentence")


def takes_boxes_and_masks(metric: Metric) -> None:
    """Where objects are, as boxes or as masks, whichever the data has."""
    if metric.spec.truth not in ("boxes", "masks"):
        return
    case = made(metric)
    boxes, masks = truth_of("boxes", 5), truth_of("masks", 5)
    for what, truth in (("boxes", boxes), ("one box each", boxes[:, 0]), ("masks", masks)):
        _require_rows(metric, replace(case, truth=truth), what)
    _require_rows(metric, replace(case, truth=masks == 1), "masks of bools")


def _require_rows(metric: Metric, case: Case, what: str) -> None:
    rows = scored(metric, case)
    if len(rows) != len(case.images) or not bool(rows.isfinite().all()):
        raise ContractError(f"{metric.spec.name} gives rows that are not finite for {what}")


CHECKS = (
    refuses_maps_that_do_not_fit,
    refuses_truth_that_does_not_fit,
    takes_boxes_and_masks,
)
