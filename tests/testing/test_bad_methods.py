"""The contract suite catches methods that are wrong on purpose, each by the check for it."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Target
from xcam.engine import forward, gradients
from xcam.engine.trace import hooks
from xcam.errors import UnknownNameError
from xcam.testing import (
    CheckResult,
    ContractError,
    check_method,
    group_by_cause,
    method_checks,
    quick,
)


def gradient(model: nn.Module, images: Tensor, target: Target) -> Tensor:
    """The honest work that every method here does, before or after its mischief."""
    with gradients(model):
        leaf = images.detach().clone().requires_grad_()
        output = forward.call(model, leaf)
        target.bind(output)
        return torch.autograd.grad(target.scores(output).sum(), leaf)[0]


def spec(**changes: Any) -> MethodSpec:
    honest = MethodSpec(
        name="bad", title="Bad", paper="None, 2026", family="gradient", cost="1 forward + backward"
    )
    return dataclasses.replace(honest, **changes)


@dataclass(frozen=True)
class Good(Method):
    """Wrong in nothing."""

    spec: ClassVar[MethodSpec] = spec(name="good")

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target)


@dataclass(frozen=True)
class LeaksHook(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        last(model).register_forward_hook(print_nothing)
        return gradient(model, images, target)


def last(model: nn.Module) -> nn.Module:
    return list(model.modules())[-1]


def print_nothing(*_: object) -> None:
    """A hook that changes nothing."""


@dataclass(frozen=True)
class LeaksHookOnFailure(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        handle = last(model).register_forward_pre_hook(print_nothing)
        maps = gradient(model, images, target)
        handle.remove()
        return maps


@dataclass(frozen=True)
class LeaksHookWhenTargetFails(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        maps = gradient(model, images, target)
        handle = last(model).register_full_backward_pre_hook(print_nothing)
        with torch.no_grad():
            target.scores(forward.call(model, images))
        handle.remove()
        return maps


@dataclass(frozen=True)
class ReplacesModule(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        maps = gradient(model, images, target)
        for module in model.modules():
            for name, child in module.named_children():
                if isinstance(child, nn.Linear):
                    setattr(module, name, copy.copy(child))
        return maps


@dataclass(frozen=True)
class LeavesAttribute(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        last(model).last_images = len(images)
        return gradient(model, images, target)


@dataclass(frozen=True)
class ChangesMode(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        maps = gradient(model, images, target)
        last(model).training = True
        return maps


@dataclass(frozen=True)
class LeavesGrad(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        maps = gradient(model, images, target)
        weight = next(model.parameters())
        weight.grad = torch.ones_like(weight)
        return maps


@dataclass(frozen=True)
class CallsBackward(Method):
    """What most code on the web does."""

    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        with gradients(model):
            leaf = images.detach().clone().requires_grad_()
            output = forward.call(model, leaf)
            target.bind(output)
            target.scores(output).sum().backward()
        return leaf.grad


@dataclass(frozen=True)
class Unfreezes(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        maps = gradient(model, images, target)
        bias = list(model.parameters())[-1]
        bias.requires_grad_(not bias.requires_grad)
        return maps


@dataclass(frozen=True)
class ChangesParameter(Method):
    """Leaves the values as they were, but writes to them."""

    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        maps = gradient(model, images, target)
        with torch.no_grad():
            next(model.parameters()).mul_(1)
        return maps


@dataclass(frozen=True)
class ChangesBuffer(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        maps = gradient(model, images, target)
        for buffer in model.buffers():
            buffer += 1
        return maps


@dataclass(frozen=True)
class MutatesImages(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        maps = gradient(model, images, target)
        images.detach().clamp_(0, 0.9)
        return maps


@dataclass(frozen=True)
class MarksImages(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        maps = gradient(model, images, target)
        if not images.requires_grad and not images.is_inference():
            images.requires_grad_()
        return maps


@dataclass(frozen=True)
class SeedsGlobally(Method):
    """Deterministic, at the price of everybody else's randomness."""

    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        np.random.seed(0)
        return gradient(model, images, target)


@dataclass(frozen=True)
class DrawsGlobally(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target) + 1e-2 * torch.rand(images.shape[1:])


@dataclass(frozen=True)
class LeavesGradModeOff(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        torch.set_grad_enabled(False)
        maps = gradient(model, images, target)
        torch.set_grad_enabled(True)
        return maps


@dataclass(frozen=True)
class SwallowsErrors(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        try:
            return gradient(model, images, target)
        except Exception:
            return torch.zeros_like(images)


@dataclass(frozen=True)
class IgnoresTarget(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, Target.of(0, images))


@dataclass(frozen=True)
class HidesThatItFollowsTheTarget(Method):
    spec: ClassVar[MethodSpec] = spec(class_specific=False)

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target)


@dataclass(frozen=True)
class MixesUpTargets(Method):
    """Explains the first image's class in all images of the chunk."""

    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        if target.classes is None:
            return gradient(model, images, target)
        return gradient(model, images, Target.of(int(target.classes[0]), images))


@dataclass(frozen=True)
class ForgetsRows(Method):
    """Asks for the scores of a part of the images without saying of which."""

    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        maps = gradient(model, images, target)
        with gradients(model):
            leaf = images[-1:].detach().clone().requires_grad_()
            scores = target.scores(forward.call(model, leaf), torch.zeros(1, dtype=torch.int64))
            last = torch.autograd.grad(scores.sum(), leaf)[0]
        return torch.cat([maps[:-1], last])


@dataclass(frozen=True)
class ExplainsAnotherPrediction(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        if target.function is None and target.classes is None:
            target.classes = torch.zeros(len(images), dtype=torch.int64)
        return gradient(model, images, target)


@dataclass(frozen=True)
class ReadsCallableTwice(Method):
    """Treats a callable's score as a logit of its own class."""

    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        maps = gradient(model, images, target)
        return maps if target.function is None else maps + images


@dataclass(frozen=True)
class NormalizesOverBatch(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        maps = gradient(model, images, target)
        return maps / (maps.abs().max() + 1e-6)


@dataclass(frozen=True)
class DrawsNoiseForTheBatch(Method):
    """Seeded, but each image's noise depends on its place."""

    seed: int = 0

    spec: ClassVar[MethodSpec] = spec(stochastic=True)

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        noise = 0.1 * torch.randn(images.shape, generator=generator)
        return gradient(model, images + noise.to(images), target)


@dataclass(frozen=True)
class IgnoresSeed(Method):
    seed: int = 0

    spec: ClassVar[MethodSpec] = spec(stochastic=True)

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target)


@dataclass(frozen=True)
class HidesItsSeed(Method):
    seed: int = 0

    spec: ClassVar[MethodSpec] = spec(stochastic=False)

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return gradient(model, images, target) * torch.rand(images.shape[1:], generator=generator)


@dataclass(frozen=True)
class DriftsFromCallToCall(Method):
    spec: ClassVar[MethodSpec] = spec()
    calls: ClassVar[itertools.count] = itertools.count()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        maps = gradient(model, images, target)
        return maps * (1 + 1e-6 * (next(self.calls) % 2))


@dataclass(frozen=True)
class RemembersLastCall(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        object.__setattr__(self, "last", images.shape)
        return gradient(model, images, target)


@dataclass(frozen=True)
class DividesByZero(Method):
    """NaN where an image is flat."""

    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        contrast = images.detach().amax((1, 2, 3), True) - images.detach().amin((1, 2, 3), True)
        return gradient(model, images, target) * (contrast / contrast)


@dataclass(frozen=True)
class DividesByGradient(Method):
    """NaN where no gradient is."""

    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        maps = gradient(model, images, target)
        return maps / maps.abs().amax((1, 2, 3), keepdim=True)


@dataclass(frozen=True)
class ReturnsNan(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target) * float("nan")


@dataclass(frozen=True)
class ReturnsNumbers(Method):
    """One number an image is no map."""

    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target).mean((1, 2, 3))[:, None, None]


@dataclass(frozen=True)
class Transposes(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target).sum(1).transpose(1, 2)


@dataclass(frozen=True)
class NeedsColor(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target)[:, [0, 1, 2]]


@dataclass(frozen=True)
class AssumesAnAttribute(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target) * model.fc.out_features


@dataclass(frozen=True)
class MovesToHost(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return torch.from_numpy(gradient(model, images, target).numpy())


@dataclass(frozen=True)
class MovesToHostByCpu(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target).cpu()


@dataclass(frozen=True)
class MovesToHostByTo(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target).to("cpu")


@dataclass(frozen=True)
class MovesToHostAsArray(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return torch.as_tensor(np.asarray(gradient(model, images, target)))


@dataclass(frozen=True)
class MovesToHostAsList(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return torch.tensor(gradient(model, images, target).tolist())


@dataclass(frozen=True)
class LiesAboutSigned(Method):
    spec: ClassVar[MethodSpec] = spec(signed=False)

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target)


@dataclass(frozen=True)
class LiesAboutUnsigned(Method):
    spec: ClassVar[MethodSpec] = spec(signed=True)

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target).abs()


@dataclass(frozen=True)
class LiesAboutNormalized(Method):
    spec: ClassVar[MethodSpec] = spec(signed=False, normalized=True)

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return 1e4 * gradient(model, images, target).abs()


@dataclass(frozen=True)
class HidesACopy(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(copy.deepcopy(model), images, target)


@dataclass(frozen=True)
class ClaimsACopy(Method):
    spec: ClassVar[MethodSpec] = spec(alters_model=True)

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target)


@dataclass(frozen=True)
class NeedsGradMode(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        leaf = images.detach().clone().requires_grad_()
        output = forward.call(model, leaf)
        target.bind(output)
        return torch.autograd.grad(target.scores(output).sum(), leaf)[0]


@dataclass(frozen=True)
class ReadsMemoryOrder(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target) * (1 + images.stride()[-1])


@dataclass(frozen=True)
class KnowsOnlyReluModules(Method):
    """A wrong map, in silence, where a ReLU is not the kind it looks for."""

    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        found = [m for m in model.modules() if isinstance(m, nn.ReLU) and not m.inplace]
        return gradient(model, images, target) * (1 + len(found))


@dataclass
class Thawed(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target)


@dataclass(frozen=True)
class Tightlipped(Method):
    strength: float = 1.0

    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return self.strength * gradient(model, images, target)

    def __repr__(self) -> str:
        return "Tightlipped(...)"


def local_class() -> type[Method]:
    @dataclass(frozen=True)
    class Local(Method):
        spec: ClassVar[MethodSpec] = spec()

        def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
            return gradient(model, images, target)

    return Local


@dataclass(frozen=True)
class Shouts(Method):
    spec: ClassVar[MethodSpec] = spec(name="Shouts-CAM")

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target)


@dataclass(frozen=True)
class HasNoSource(Method):
    spec: ClassVar[MethodSpec] = spec(paper=" ")

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target)


@dataclass(frozen=True)
class Excused(Method):
    spec: ClassVar[MethodSpec] = spec(exceptions={"takes_gray_images": "needs three channels"})

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target)[:, [0, 1, 2]]


@dataclass(frozen=True)
class Unexplained(Method):
    spec: ClassVar[MethodSpec] = spec(exceptions={"takes_gray_images": " "})

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target)[:, [0, 1, 2]]


@dataclass(frozen=True)
class ExcusesNoSuchCheck(Method):
    spec: ClassVar[MethodSpec] = spec(exceptions={"takes_grey_images": "spelt otherwise"})

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target)


@dataclass(frozen=True)
class ExcusesTheInexcusable(Method):
    spec: ClassVar[MethodSpec] = spec(exceptions={"leaves_hooks": "they are harmless"})

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        last(model).register_forward_hook(print_nothing)
        return gradient(model, images, target)


@dataclass(frozen=True)
class ExcusedWithoutNeed(Method):
    spec: ClassVar[MethodSpec] = spec(exceptions={"takes_gray_images": "it never tried"})

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target)


_WHOLE_BATCH = {"same_for_any_batch_size", "same_in_any_order", "same_for_a_subset"}

# What each breaks: these checks and no others.
CAUGHT: dict[type[Method], set[str]] = {
    LeaksHook: {"leaves_hooks"},
    LeaksHookOnFailure: {"leaves_hooks"},
    LeaksHookWhenTargetFails: {"leaves_hooks"},
    ReplacesModule: {"leaves_modules", "leaves_modes"},
    LeavesAttribute: {"leaves_modules"},
    ChangesMode: {"leaves_modes"},
    LeavesGrad: {"leaves_gradients"},
    CallsBackward: {"leaves_gradients", "leaves_requires_grad"},
    Unfreezes: {"leaves_requires_grad"},
    ChangesParameter: {"leaves_parameters"},
    ChangesBuffer: {"leaves_buffers", "same_for_any_batch_size"},
    MutatesImages: {"leaves_images"},
    MarksImages: {"leaves_images"},
    SeedsGlobally: {"leaves_random_state"},
    DrawsGlobally: {
        "leaves_random_state",
        "same_under_any_global_seed",
        "same_for_any_batch_size",
    },
    LeavesGradModeOff: {"leaves_grad_mode"},
    SwallowsErrors: {"passes_errors_on"},
    IgnoresTarget: {"follows_the_target"},
    HidesThatItFollowsTheTarget: {"follows_the_target"},
    MixesUpTargets: {"takes_a_callable", *_WHOLE_BATCH},
    ForgetsRows: _WHOLE_BATCH,
    ExplainsAnotherPrediction: {"takes_every_kind_of_target"},
    ReadsCallableTwice: {"takes_a_callable"},
    NormalizesOverBatch: {
        "same_for_any_batch_size",
        "same_for_a_subset",
        "same_beside_other_images",
    },
    DrawsNoiseForTheBatch: _WHOLE_BATCH,
    IgnoresSeed: {"follows_its_seed"},
    HidesItsSeed: {"follows_its_seed"},
    DriftsFromCallToCall: {"keeps_nothing", "same_under_any_global_seed"},
    RemembersLastCall: {"keeps_nothing"},
    DividesByZero: {"takes_flat_images"},
    DividesByGradient: {"takes_dead_features"},
    ReturnsNumbers: {"gives_maps"},
    Transposes: {"keeps_the_aspect"},
    NeedsColor: {"takes_gray_images"},
    AssumesAnAttribute: {"runs_or_refuses_clearly"},
    MovesToHost: {"stays_on_device"},
    MovesToHostByCpu: {"stays_on_device"},
    MovesToHostByTo: {"stays_on_device"},
    MovesToHostAsArray: {"stays_on_device"},
    MovesToHostAsList: {"stays_on_device"},
    LiesAboutSigned: {"tells_whether_signed"},
    LiesAboutUnsigned: {"tells_whether_signed"},
    LiesAboutNormalized: {"tells_whether_normalized"},
    HidesACopy: {"tells_whether_it_alters_the_model"},
    ClaimsACopy: {"tells_whether_it_alters_the_model"},
    NeedsGradMode: {"same_under_no_grad", "same_under_inference_mode"},
    ReadsMemoryOrder: {"same_for_noncontiguous_tensors"},
    KnowsOnlyReluModules: {
        "same_with_inplace_relu",
        "same_with_functional_relu",
        "same_with_reused_relu",
    },
    Thawed: {"is_a_frozen_dataclass"},
    Tightlipped: {"shows_its_settings"},
    local_class(): {"survives_pickling"},
    Shouts: {"has_a_spec"},
    HasNoSource: {"has_a_spec"},
    Unexplained: {"excuses_little"},
    ExcusesNoSuchCheck: {"excuses_little"},
    ExcusesTheInexcusable: {"excuses_little", "leaves_hooks"},
    ExcusedWithoutNeed: {"takes_gray_images"},
}


def broken(method: Method) -> dict[str, str]:
    return {r.check: r.message for r in check_method(method) if r.outcome == "broken"}


def test_good_method_keeps_every_promise():
    assert {(r.outcome, r.message) for r in check_method(Good())} == {("kept", "")}


@pytest.mark.parametrize("kind", CAUGHT, ids=lambda kind: kind.__name__)
def test_bad_method_is_caught_by_its_check(kind):
    found = broken(kind())
    assert set(found) == CAUGHT[kind]
    assert all("\n" not in message and message for message in found.values())


def test_nan_is_caught_wherever_maps_are_read():
    assert {"gives_maps", "takes_flat_images", "same_under_no_grad"} <= set(broken(ReturnsNan()))


def test_every_check_catches_something():
    """No check that cannot fail."""
    caught = set().union(*CAUGHT.values())
    assert {check.name for check in method_checks(Good())} - caught == set()


def test_exception_excuses_its_check_alone():
    results = {result.check: result for result in check_method(Excused())}
    assert results["takes_gray_images"] == CheckResult(
        "takes_gray_images", "excused", "needs three channels"
    )
    assert {r.outcome for r in results.values() if r.check != "takes_gray_images"} == {"kept"}
    (check,) = (c for c in method_checks(Excused()) if c.name == "takes_gray_images")
    check()  # an excused check does not fail a plugin author's test


@dataclass(frozen=True)
class RaisesAtLength(Method):
    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        raise RuntimeError("not now,\n    and not here")


def test_error_of_the_method_breaks_a_check_in_one_line():
    assert run_check(RaisesAtLength(), "gives_maps").message == (
        "RaisesAtLength raised RuntimeError: not now, and not here"
    )


def run_check(method: Method, name: str) -> CheckResult:
    return next(check for check in method_checks(method) if check.name == name).result()


def test_result_names_the_line_of_the_error():
    raising = inspect.getsourcelines(RaisesAtLength.maps)[1] + 1
    assert run_check(RaisesAtLength(), "gives_maps").where.endswith(f"methods.py:{raising}")
    moving = inspect.getsourcelines(MovesToHostByCpu.maps)[1] + 1  # behind a check's own sentence
    assert run_check(MovesToHostByCpu(), "stays_on_device").where.endswith(f":{moving}")
    whole = inspect.getsourcelines(LeaksHook)[1]  # no error: the class
    assert run_check(LeaksHook(), "leaves_hooks").where.endswith(f":{whole}")
    assert run_check(LeaksHook(), "gives_maps").where == ""


def test_errors_of_one_line_are_one_cause():
    results = check_method(NeedsGradMode())
    groups = group_by_cause(results)
    broken = [group for group in groups if group[0].outcome == "broken"]
    assert [{result.check for result in group} for group in broken] == [
        {"same_under_no_grad", "same_under_inference_mode"}
    ]
    assert sum(map(len, groups)) == len(results)


@dataclass(frozen=True)
class CutsTheTail(Method):
    """Reads features and never lets a pass end; wrong in nothing, or hides errors of the model."""

    hides: bool = False

    spec: ClassVar[MethodSpec] = spec(class_specific=False, signed=False)

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        try:
            with hooks(model.get_submodule("features"), after=stop_pass):
                forward.call(model, images)
        except Reached as reached:
            return reached.args[0].mean(1).abs()
        except Exception:
            if not self.hides:
                raise
        return images.mean(1).abs()


class Reached(BaseException):
    """Ends a pass."""


def stop_pass(_inputs: object, output: Tensor) -> None:
    raise Reached(output)


def test_passes_are_failed_at_their_start_too():
    """Or nothing planned would happen to a method that stops them half-way."""
    assert broken(CutsTheTail()).keys() == {"runs_or_refuses_clearly"}
    assert "passes_errors_on" in broken(CutsTheTail(hides=True))


def test_check_raises_one_sentence():
    (check,) = (c for c in method_checks(LeaksHook()) if c.name == "leaves_hooks")
    assert str(check) == "leaves_hooks"
    with pytest.raises(ContractError, match=r"^bad changed _forward_hooks of module 'fc', seen"):
        check()


def test_bad_method_does_no_harm_to_the_next_check():
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    check_method(LeavesGradModeOff())
    check_method(SeedsGlobally())
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])


def test_checks_refuse_what_is_no_method_object():
    with pytest.raises(TypeError, match=r"must be a Method object such as MyCAM\(\), got <class"):
        method_checks(Good)
    with pytest.raises(UnknownNameError, match="no method 'gradcan': did you mean gradcam"):
        check_method("gradcan")


@dataclass(frozen=True)
class Costly(Method):
    n_masks: int = 4000
    n_samples: int = 2
    n_steps: int | None = None

    spec: ClassVar[MethodSpec] = spec()

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        return gradient(model, images, target)


def test_quick_lowers_what_is_costly_and_nothing_else():
    assert quick(Costly()) == Costly(n_masks=16, n_samples=2)
    assert quick(Good()) == Good()
    assert {check.subject for check in method_checks(Costly())} == {Costly(n_masks=16)}
