"""The same question has the same answer: whatever the batch, the seeds, the surroundings."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from xcam.core import Explanation
from xcam.errors import XcamError
from xcam.testing.checks.facets import AnySubject, make_mixed_world
from xcam.testing.method_subject import MethodSubject
from xcam.testing.metric_subject import MetricSubject
from xcam.testing.probe import ContractError, Relus, replace_relus
from xcam.testing.subject import TOLERANCE, Case

__all__ = ["BATCHING", "METHODS", "METRICS", "SURROUNDINGS"]


def same_for_any_batch_size(subject: AnySubject) -> None:
    """Require the same for one, three or seven rows through the model at a time as for all."""
    reference = subject.run(batch_size=10_000)
    for size in (1, 3, 7):
        values = subject.run(batch_size=size)
        subject.require_same(values, reference, f"with batch_size={size} than all at once")


def same_in_any_order(subject: AnySubject) -> None:
    """Require the same for images in another order, with their targets, maps and truth."""
    case = subject.build_case()
    order = [image for image in (3, 0, 4, 2, 1) if image < len(case.images)]
    values = subject.run(case.select(order))
    subject.require_same(values, subject.reference[order], "when images are reordered")


def same_for_a_subset(subject: AnySubject) -> None:
    """Require the same for each image in a call of its own, and for two in one."""
    case = subject.build_case()
    reference, count = subject.reference, len(case.images)
    for chosen in [*([image] for image in range(count)), [1, count - 1]]:
        values = subject.run(case.select(chosen))
        subject.require_same(values, reference[chosen], "when other images leave the call")


def same_beside_other_images(subject: AnySubject) -> None:
    """Require the same for an image beside much brighter and darker ones, with larger maps."""
    reference = subject.run(_scale(subject.build_case(), [1]).select([0]))
    others = _scale(subject.build_case(), [1, 50, -3, 1 / 9, 1e-3])
    values = subject.run(others, batch_size=10_000)[:1]
    subject.require_same(values, reference, "for an image beside very different ones")


def _scale(case: Case, factors: Sequence[float]) -> Case:
    """Multiply images by these factors, and their maps by ten times as much."""

    def scale(tensor: Tensor, more: float) -> Tensor:
        scaled = tensor.clone()
        for row, factor in zip(scaled, factors, strict=False):
            if factor != 1:
                row.mul_(more * factor)
        return scaled

    changed = case if case.explanation is None else case.with_maps(scale(case.explanation.maps, 10))
    return Case(scale(case.images, 1), case.classes, changed.explanation, case.truth)


def same_under_any_global_seed(subject: AnySubject) -> None:
    """Require the same bits whatever the global seeds of torch, numpy and Python."""
    cases, found = [subject.build_case(), subject.build_case()], []
    for seed, case in enumerate(cases):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        found.append(subject.run(case))
    if not torch.equal(*found):
        raise ContractError(
            f"{subject.name} depends on the global random state; draw from an own "
            "torch.Generator, seeded by a field `seed`"
        )


def same_for_noncontiguous_tensors(subject: AnySubject) -> None:
    """Require the same for images, maps and truth that are transposed views."""
    reference = subject.run(subject.build_case().resize_maps())
    values = subject.run(subject.build_case().resize_maps().transform(_transpose_in_memory))
    subject.require_same(values, reference, "for non-contiguous images")


def _transpose_in_memory(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim < 2 else tensor.mT.contiguous().mT


def same_under_no_grad(subject: AnySubject) -> None:
    """Require the same inside the caller's `torch.no_grad`."""
    case = subject.build_case()
    with torch.no_grad():
        values = subject.run(case)
    subject.require_same(values, subject.reference, "under the caller's no_grad")


def same_under_inference_mode(subject: AnySubject) -> None:
    """Require the same, or a refusal, inside `torch.inference_mode` with tensors made there."""
    case, net = subject.build_case(), subject.build_net()

    def run() -> Tensor:
        with torch.inference_mode():
            return subject.run(case.transform(torch.clone), net).clone()

    _require_same_or_refused(subject, run, "under the caller's inference_mode")


def _require_same_or_refused(
    subject: AnySubject, run: Callable[[], Tensor], circumstance: str
) -> None:
    try:
        values = run()
    except (XcamError, TypeError, ValueError):
        return  # a sentence is as good as a map; a wrong map is not
    subject.require_same(values, subject.reference, circumstance)


def keeps_nothing(subject: AnySubject) -> None:
    """Require equal bits of a second call, and that calls leave the attributes as they were."""
    if not torch.equal(subject.run(), subject.run()):
        raise ContractError(f"{subject.name} gives other {subject.product} in a second, equal call")
    used = dataclasses.replace(subject.placed)  # type: ignore[type-var]
    before = dict(vars(used))
    subject.call(settings=used)  # type: ignore[arg-type]  # it is of the subject's own class
    after = vars(used)
    changed = [name for name in {**before, **after} if before.get(name) is not after.get(name)]
    if changed:
        raise ContractError(
            f"{subject.name} stores {', '.join(sorted(changed))} in itself during a call; "
            "configuration is fields, data is arguments"
        )


def follows_its_seed(subject: AnySubject) -> None:
    """Require that a `seed` changes something, and of a method that its spec is stochastic.

    Where a metric orders equal values in a fixed way, by its `ties`, it is asked to draw an order,
    on flat maps.
    """
    settings = subject.settings.parameters()
    has_seed = "seed" in settings
    stochastic = getattr(subject.spec, "stochastic", has_seed)
    if has_seed != stochastic:
        raise ContractError(
            f"{subject.name} has spec.stochastic={stochastic}, but "
            f"{'a' if has_seed else 'no'} field `seed`; a method is stochastic if it has one"
        )
    if not has_seed:
        return
    case, drawn = subject.build_case(), dict[str, str]()
    if settings.get("ties", "random") != "random":
        drawn["ties"] = "random"
        if case.explanation is not None:
            flat = torch.zeros_like(case.explanation.maps)
            explanation = Explanation.of(flat, case.images, target=case.explanation.target)
            case = dataclasses.replace(case, explanation=explanation)
    found = (
        subject.replace(seed=seed, **drawn).run(case) for seed in range(64)
    )  # until one differs
    first = next(found)
    if all(subject.measure(values, first) <= TOLERANCE for values in found):
        raise ContractError(f"{subject.name} gives the same {subject.product} whatever its seed")


def same_with_inplace_relu(subject: MethodSubject) -> None:
    """Require the same, or a refusal, if ReLUs work in place."""
    _require_same_with(subject, "inplace", "when ReLUs work in place")


def same_with_functional_relu(subject: MethodSubject) -> None:
    """Require the same, or a refusal, if ReLUs are functions and no modules."""
    _require_same_with(subject, "functional", "when ReLUs are functions")


def same_with_reused_relu(subject: MethodSubject) -> None:
    """Require the same, or a refusal, if one ReLU module is called in all places."""
    _require_same_with(subject, "reused", "when one ReLU module is called twice")


def _require_same_with(subject: MethodSubject, kind: Relus, circumstance: str) -> None:
    images, net, placed = subject.build_case().images, subject.copy_net(), subject.place()
    changed = replace_relus(net, kind)
    with torch.no_grad():
        if not torch.equal(changed(images), net(images)):
            return  # the net itself does not stand the change
    _require_same_or_refused(
        placed, lambda: placed.run(net=placed.build_net(changed)), circumstance
    )


def same_in_any_state_of_the_model(subject: MetricSubject) -> None:
    """Require the same for a model that is frozen, in training mode, or in a mixture of modes."""
    case = subject.build_case()
    reference = subject.reference
    nets = {
        "a frozen model": subject.build_net().requires_grad_(False),
        "a model in training mode": subject.build_net().train(),
        "a model in a mixture of modes": make_mixed_world(subject).net,
    }
    for what, net in nets.items():
        subject.require_same(subject.run(case, net), reference, f"for {what}")


def runs_in_low_precision(subject: MetricSubject) -> None:
    """Require rows of the same shape and kind, finite, under autocast to bfloat16."""
    case = subject.build_case()
    reference, rows = subject.reference, subject.run(case, precision="bf16")
    same_kind = rows.shape == reference.shape and rows.dtype == reference.dtype
    if not same_kind or not bool(rows.isfinite().all()):
        raise ContractError(
            f"{subject.name} gives {tuple(rows.shape)} {rows.dtype} under bf16, and "
            f"{tuple(reference.shape)} {reference.dtype} without, or values that are not finite"
        )


BATCHING: tuple[Callable[[AnySubject], None], ...] = (
    same_for_any_batch_size,
    same_in_any_order,
    same_for_a_subset,
    same_beside_other_images,
)

SURROUNDINGS: tuple[Callable[[AnySubject], None], ...] = (
    same_under_any_global_seed,
    same_for_noncontiguous_tensors,
    same_under_no_grad,
    same_under_inference_mode,
    keeps_nothing,
    follows_its_seed,
)

METHODS = (same_with_inplace_relu, same_with_functional_relu, same_with_reused_relu)
METRICS = (same_in_any_state_of_the_model, runs_in_low_precision)
