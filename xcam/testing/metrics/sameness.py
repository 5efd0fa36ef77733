"""The same maps have the same score: whatever the batch, the seeds, the surroundings."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from xcam.core import Metric
from xcam.errors import XcamError
from xcam.testing.checks.facets import mixed
from xcam.testing.metrics.case import Case, made, require_same, scored
from xcam.testing.probe import ContractError, ProbeNet

__all__ = ["BATCHING", "SURROUNDINGS"]


def same_for_any_batch_size(metric: Metric) -> None:
    """Rows through the model one at a time, two at a time, seven at a time, and all at once."""
    case = made(metric)
    reference = scored(metric, case)
    for size in (1, 2, 7, 10_000):
        rows = scored(metric, case, batch_size=size)
        require_same(metric, rows, reference, f"with batch_size={size} than by default")


def same_in_any_order(metric: Metric) -> None:
    """Images with their maps and truth in another order."""
    case, order = made(metric), [3, 0, 4, 2, 1]
    reference = scored(metric, case)[order]
    require_same(metric, scored(metric, case.of(order)), reference, "when images are reordered")


def same_for_a_subset(metric: Metric) -> None:
    """Each image in a call of its own, and some of them in one."""
    case = made(metric)
    reference = scored(metric, case)
    for chosen in ([0], [1], [2], [3], [4], [1, 4]):
        rows = scored(metric, case.of(chosen))
        require_same(metric, rows, reference[chosen], "when other images leave the call")


def same_beside_other_images(metric: Metric) -> None:
    """One image beside much brighter and darker ones, with larger maps, in one chunk."""
    case = made(metric)
    images, maps = case.images.clone(), case.explanation.maps.clone()
    for image, factor in enumerate((50, -3, 1 / 9, 0), start=1):
        images[image] *= factor
        maps[image] *= 10 * factor
    others = Case(images, case.with_maps(maps).explanation, case.truth)
    rows = scored(metric, others, batch_size=10_000)[:1]
    reference = scored(metric, case.with_maps(case.explanation.maps).of([0]))
    require_same(metric, rows, reference, "for an image beside very different ones")


def same_under_any_global_seed(metric: Metric) -> None:
    """The global generators of torch, numpy and Python seeded otherwise: the same bits."""
    case, found = made(metric), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        found.append(scored(metric, case))
    if not torch.equal(*found):
        raise ContractError(
            f"{metric.spec.name} depends on the global random state; draw from an own "
            "torch.Generator, seeded by a field `seed`"
        )


def same_for_noncontiguous_tensors(metric: Metric) -> None:
    """Images, maps and masks are transposed views."""
    case = made(metric)
    truth, explanation = case.truth, case.explanation
    if metric.spec.truth == "masks" and truth is not None:
        truth = _view(truth)
    case = case.with_maps(explanation.maps)
    turned = dataclasses.replace(explanation, raw=_view(explanation.maps))
    rows = scored(metric, Case(_view(case.images), turned, truth))
    require_same(metric, rows, scored(metric, case), "for non-contiguous images and maps")


def _view(tensor: Tensor) -> Tensor:
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


def same_in_any_state_of_the_model(metric: Metric) -> None:
    """Frozen; in training mode; with gradients, in a mixture of modes."""
    case = made(metric)
    reference = scored(metric, case)
    nets = {
        "a frozen model": ProbeNet().requires_grad_(False),
        "a model in training mode": ProbeNet().train(),
        "a model in a mixture of modes": mixed().net,
    }
    for what, net in nets.items():
        require_same(metric, scored(metric, case, net), reference, f"for {what}")


def same_under_no_grad(metric: Metric) -> None:
    """The caller is inside `torch.no_grad`."""
    case = made(metric)
    with torch.no_grad():
        rows = scored(metric, case)
    require_same(metric, rows, scored(metric, case), "under the caller's no_grad")


def same_under_inference_mode(metric: Metric) -> None:
    """The caller is inside `torch.inference_mode`, with tensors made there; or a clear refusal."""
    case, net = made(metric), ProbeNet()
    try:
        with torch.inference_mode():
            rows = scored(metric, _copied(case), net)
        rows = rows.clone()
    except (XcamError, TypeError, ValueError):
        return  # a sentence is as good as a score; a wrong score is not
    require_same(metric, rows, scored(metric, case), "under the caller's inference_mode")


def _copied(case: Case) -> Case:
    raw = case.explanation.raw.clone()
    return Case(case.images.clone(), dataclasses.replace(case.explanation, raw=raw), case.truth)


def keeps_nothing(metric: Metric) -> None:
    """A call leaves the metric's attributes as they were, and a second one gives the same bits."""
    case, before = made(metric), dict(vars(metric))
    if not torch.equal(scored(metric, case), scored(metric, case)):
        raise ContractError(f"{metric.spec.name} gives other scores in a second, equal call")
    after = vars(metric)
    changed = [name for name in {**before, **after} if before.get(name) is not after.get(name)]
    if changed:
        raise ContractError(
            f"{metric.spec.name} stores {', '.join(sorted(changed))} in itself during a call; "
            "configuration is fields, data is arguments"
        )


def follows_its_seed(metric: Metric) -> None:
    """A field `seed`, if there is one, changes some score."""
    if "seed" not in metric.parameters():
        return
    case = made(metric)
    seeds = (dataclasses.replace(metric, seed=seed) for seed in range(64))  # type: ignore[type-var]
    found = (scored(seeded, case) for seeded in seeds)  # until one differs: hits seldom do
    first = next(found)
    if all(torch.equal(rows, first) for rows in found):
        raise ContractError(f"{metric.spec.name} gives the same scores whatever its seed")


def runs_in_low_precision(metric: Metric) -> None:
    """Under autocast to bfloat16: rows of the same shape and kind, finite."""
    case = made(metric)
    reference, rows = scored(metric, case), scored(metric, case, precision="bf16")
    same_kind = rows.shape == reference.shape and rows.dtype == reference.dtype
    if not same_kind or not bool(rows.isfinite().all()):
        raise ContractError(
            f"{metric.spec.name} gives {tuple(rows.shape)} {rows.dtype} under bf16, and "
            f"{tuple(reference.shape)} {reference.dtype} without, or values that are not finite"
        )


BATCHING: tuple[Callable[[Metric], None], ...] = (
    same_for_any_batch_size,
    same_in_any_order,
    same_for_a_subset,
    same_beside_other_images,
)

SURROUNDINGS: tuple[Callable[[Metric], None], ...] = (
    same_under_any_global_seed,
    same_for_noncontiguous_tensors,
    same_in_any_state_of_the_model,
    same_under_no_grad,
    same_under_inference_mode,
    keeps_nothing,
    follows_its_seed,
    runs_in_low_precision,
)
