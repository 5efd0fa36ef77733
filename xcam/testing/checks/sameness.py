"""The same question has the same answer: whatever the batch, the seeds, the surroundings."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from xcam.core import Method, Target
from xcam.errors import XcamError
from xcam.testing.probe import (
    CLASSES,
    ContractError,
    ProbeNet,
    Rectifier,
    carrier,
    distance,
    explained,
    pictures,
    placed,
)

__all__ = ["BATCHING", "SURROUNDINGS"]

TOLERANCE = 1e-5
"""How far a map may be off, as a share of its range: batch sizes round differently."""


def _require_same(method: Method, raw: Tensor, reference: Tensor, circumstance: str) -> None:
    off = distance(raw, reference)
    if off > TOLERANCE:
        raise ContractError(
            f"{method.spec.name} gives other maps {circumstance}: off by {off:.1e} of their range, "
            f"at most {TOLERANCE:.0e} is allowed"
        )


def same_for_any_batch_size(method: Method) -> None:
    """Images one at a time, three at a time, and all at once."""
    reference = explained(method, batch_size=5).raw
    for size in (1, 3):
        raw = explained(method, batch_size=size).raw
        _require_same(method, raw, reference, f"with batch_size={size} than with batch_size=5")


def same_in_any_order(method: Method) -> None:
    """Images and their targets in another order."""
    order = [3, 0, 4, 2, 1]
    raw = explained(method, images=pictures()[order], target=[CLASSES[i] for i in order]).raw
    _require_same(method, raw, explained(method).raw[order], "when the images are reordered")


def same_for_a_subset(method: Method) -> None:
    """Some of the images in a call of their own."""
    chosen = [1, 4]
    raw = explained(method, images=pictures()[chosen], target=[CLASSES[i] for i in chosen]).raw
    _require_same(method, raw, explained(method).raw[chosen], "when other images leave the call")


def same_beside_other_images(method: Method) -> None:
    """One image beside much brighter, darker and repeated ones, in one chunk."""
    images = pictures()
    others = torch.stack([images[0], 50 * images[1], -3 * images[2], images[0], images[3] / 9])
    raw = explained(method, images=others, batch_size=5).raw[:1]
    reference = explained(method, images=images[:1], target=CLASSES[:1]).raw
    _require_same(method, raw, reference, "for an image beside very different ones")


def same_under_any_global_seed(method: Method) -> None:
    """The global generators of torch, numpy and Python seeded otherwise: the same bits."""
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        found.append(explained(method).raw)
    if not torch.equal(*found):
        raise ContractError(
            f"{method.spec.name} depends on the global random state; draw from an own "
            "torch.Generator, seeded by a field `seed`"
        )


def same_for_noncontiguous_images(method: Method) -> None:
    """The images are a transposed view."""
    images = pictures().transpose(2, 3).contiguous().transpose(2, 3)
    raw = explained(method, images=images).raw
    _require_same(method, raw, explained(method).raw, "for non-contiguous images")


def same_under_no_grad(method: Method) -> None:
    """The caller is inside `torch.no_grad`."""
    with torch.no_grad():
        raw = explained(method).raw
    _require_same(method, raw, explained(method).raw, "under the caller's no_grad")


def same_under_inference_mode(method: Method) -> None:
    """The caller is inside `torch.inference_mode`, with images made there; or a clear refusal."""
    net = carrier(method, ProbeNet())

    def run() -> Tensor:
        with torch.inference_mode():
            return explained(method, net, pictures()).raw.clone()

    _same_or_refused(method, run, "under the caller's inference_mode")


def same_with_inplace_relu(method: Method) -> None:
    """ReLUs that work in place; or a clear refusal."""
    _same_with(method, "inplace", "when ReLUs work in place")


def same_with_functional_relu(method: Method) -> None:
    """ReLUs that are functions and no modules; or a clear refusal."""
    _same_with(method, "functional", "when ReLUs are functions")


def same_with_reused_relu(method: Method) -> None:
    """One ReLU module called in two places; or a clear refusal."""
    _same_with(method, "reused", "when one ReLU module is called twice")


def _same_with(method: Method, rectifier: Rectifier, circumstance: str) -> None:
    method = placed(method)
    _same_or_refused(method, lambda: explained(method, ProbeNet(rectifier)).raw, circumstance)


def _same_or_refused(method: Method, run: Callable[[], Tensor], circumstance: str) -> None:
    reference = explained(method).raw
    try:
        raw = run()
    except (XcamError, TypeError, ValueError):
        return  # a sentence is as good as a map; a wrong map is not
    _require_same(method, raw, reference, circumstance)


def keeps_nothing(method: Method) -> None:
    """A call leaves the method's attributes as they were, and a second one gives the same bits."""
    first, second = explained(method).raw, explained(method).raw
    if not torch.equal(first, second):
        raise ContractError(f"{method.spec.name} gives other maps in a second, equal call")
    used = dataclasses.replace(placed(method))  # type: ignore[type-var]
    before, images = dict(vars(used)), pictures()
    used.maps(carrier(method, ProbeNet()).requires_grad_(False), images, Target.of(CLASSES, images))
    after = vars(used)
    changed = [name for name in {**before, **after} if before.get(name) is not after.get(name)]
    if changed:
        raise ContractError(
            f"{method.spec.name} stores {', '.join(sorted(changed))} in itself during a call; "
            "configuration is fields, data is arguments"
        )


def follows_its_seed(method: Method) -> None:
    """Stochastic methods, and only they, have a `seed`, which changes the map."""
    has_seed, stochastic = "seed" in method.parameters(), method.spec.stochastic
    if has_seed != stochastic:
        raise ContractError(
            f"{method.spec.name} has spec.stochastic={stochastic}, but "
            f"{'a' if has_seed else 'no'} field `seed`; a method is stochastic if it has one"
        )
    if not stochastic:
        return
    seeds = [dataclasses.replace(method, seed=seed) for seed in (1, 2)]  # type: ignore[type-var]
    first, second = (explained(seeded).raw for seeded in seeds)
    if distance(first, second) <= TOLERANCE:
        raise ContractError(f"{method.spec.name} gives the same maps whatever its seed")


BATCHING = (
    same_for_any_batch_size,
    same_in_any_order,
    same_for_a_subset,
    same_beside_other_images,
)

SURROUNDINGS = (
    same_under_any_global_seed,
    same_for_noncontiguous_images,
    same_under_no_grad,
    same_under_inference_mode,
    same_with_inplace_relu,
    same_with_functional_relu,
    same_with_reused_relu,
    keeps_nothing,
    follows_its_seed,
)
