"""The optimiser with its groups of parameters, the schedule, the loss scale and clipping."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from xcam.core.instantiate import check_names, check_number, instantiate

__all__ = ["NamedArguments", "Optimization"]

NamedArguments: TypeAlias = Mapping[str, Any]  # the name of a class, and its arguments

_OPTIMIZERS = {
    name: cls
    for name, cls in vars(torch.optim).items()
    if inspect.isclass(cls) and issubclass(cls, Optimizer) and cls not in (Optimizer,)
    # One evaluates the loss several times a step, one takes sparse gradients alone.
    if name not in {"LBFGS", "SparseAdam"}
}
_SCHEDULES = {
    name: cls
    for name, cls in vars(lr_scheduler).items()
    if inspect.isclass(cls) and issubclass(cls, LRScheduler) and not name.startswith("_")
    # A base; one that needs a measurement; those that are made of other objects.
    if name
    not in {
        "LRScheduler",
        "ReduceLROnPlateau",
        "ChainedScheduler",
        "SequentialLR",
        "LambdaLR",
        "MultiplicativeLR",
    }
}
_PERIODS = ("epoch", "step")


@dataclass(frozen=True, eq=False)
class Optimization:
    """How gradients become a step.

    Attributes:
        optimizer: With the trainable parameters, in groups.
        schedule: Of its learning rates; None keeps them.
        per: When the schedule takes a step.
        scaler: Of the loss, for half precision.
        clip: The largest norm of the gradient of all parameters together; None leaves it.
    """

    optimizer: Optimizer
    schedule: LRScheduler | None
    per: str
    scaler: torch.amp.GradScaler
    clip: float | None

    @classmethod
    def create(
        cls,
        net: nn.Module,
        optimizer: NamedArguments,
        schedule: NamedArguments | None,
        groups: Mapping[str, NamedArguments],
        steps: int,
        clip: float | None,
        scaler: torch.amp.GradScaler,
    ) -> Optimization:
        """Create an optimiser and a schedule by name.

        Args:
            net: Whose trainable parameters are optimised.
            optimizer: The name and arguments of a class of `torch.optim`.
            schedule: Those of one of `torch.optim.lr_scheduler`, and `warmup`, `warmup_factor`,
                `per`.
            groups: Settings of the parameters whose names a pattern matches.
            steps: Of an epoch.
            clip: See the attribute.
            scaler: See the attribute.

        Raises:
            TypeError: Settings of the wrong kind, or that the class does not have.
            ValueError: A value that the class refuses, or a pattern that matches nothing.
            UnknownNameError: No such optimiser or schedule.
        """
        if clip is not None:
            check_number("clip", clip)
            if not clip > 0:
                raise ValueError(f"clip must be a norm above 0 or None, got {clip!r}")
        made = instantiate(
            optimizer, _OPTIMIZERS, "optimizer", _group_parameters(net, optimizer, groups)
        )
        if schedule is None:
            return cls(made, None, "epoch", scaler, clip)
        return cls(made, *_create_schedule(made, schedule, steps), scaler, clip)

    @property
    def lr(self) -> float:
        """Return the rate of the last group: that of the parameters that no pattern matches."""
        return float(self.optimizer.param_groups[-1]["lr"])

    def check_length(self, epochs: int, steps: int) -> None:
        """Refuse a schedule that ends before the training does.

        Args:
            epochs: Of the training.
            steps: Of an epoch.

        Raises:
            ValueError: `OneCycleLR` with too few steps.
        """
        length = _count_total_steps(self.schedule)
        needed = epochs * (steps if self.per == "step" else 1)
        if length is not None and length < needed:
            raise ValueError(
                f"schedule {type(self.schedule).__name__} is made for {length} steps, and {epochs} "
                f"epochs take {needed}: its length must be that of the whole training"
            )

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a part of a step's loss."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, factor: Tensor | None = None) -> None:
        """Apply the gradients, multiplied by a factor if one is given, then clear them."""
        if factor is not None:
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(factor)
        if self.clip is not None:
            self.scaler.unscale_(self.optimizer)
            groups = self.optimizer.param_groups
            parameters = [parameter for group in groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.advance("step")

    def advance(self, period: str) -> None:
        """Advance the schedule after a step or an epoch, as configured."""
        if self.schedule is None or self.per != period:
            return
        with warnings.catch_warnings():
            # Two warnings of torch's do not apply: that no step was taken before, which is so
            # after a resumption or where half precision skipped one, and that SequentialLR of
            # older versions calls a deprecated form.
            warnings.simplefilter("ignore", UserWarning)
            self.schedule.step()

    def get_state(self) -> dict[str, Any]:
        """Return what must be restored for the next step to be the same."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_state` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])


def _group_parameters(
    net: nn.Module, optimizer: NamedArguments, groups: Mapping[str, NamedArguments]
) -> list[dict[str, Any]]:
    """Return the trainable parameters in groups: each in that of the first pattern it matches."""
    _check_groups(optimizer, groups)
    trainable = {name: p for name, p in net.named_parameters() if p.requires_grad}
    if not trainable:
        raise ValueError("the model has no parameter to train: requires_grad is False for all")
    found: list[dict[str, Any]] = []
    left = dict(trainable)
    for pattern, settings in groups.items():
        if not any(re.search(pattern, name) for name in trainable):
            some = ", ".join(list(trainable)[-5:])
            raise ValueError(
                f"groups: no trainable parameter matches {pattern!r}; their names are like {some}"
            )
        names = [name for name in left if re.search(pattern, name)]
        if names:
            found.append(
                {"params": [left.pop(name) for name in names], **_resolve_rate(optimizer, settings)}
            )
    return [*found, {"params": list(left.values())}] if left else found


def _resolve_rate(optimizer: NamedArguments, settings: NamedArguments) -> dict[str, Any]:
    """Return a group's settings as the optimiser takes them: a factor makes a learning rate."""
    own = dict(settings)
    factor = own.pop("lr_factor", None)
    if factor is None:
        return own
    check_number("groups: lr_factor", factor)
    parameters = inspect.signature(_OPTIMIZERS[optimizer["name"]]).parameters
    return {"lr": factor * optimizer.get("lr", parameters["lr"].default), **own}


def _check_groups(optimizer: NamedArguments, groups: Mapping[str, NamedArguments]) -> None:
    if not isinstance(groups, Mapping):
        raise TypeError(f"groups must map patterns to settings, got {groups!r}")
    cls = _OPTIMIZERS.get(optimizer.get("name", "")) if isinstance(optimizer, Mapping) else None
    if cls is None:
        return  # refused with a sentence when the optimiser is made
    known = ["lr_factor", *inspect.signature(cls).parameters]
    known.remove("params")
    for pattern, settings in groups.items():
        if not isinstance(settings, Mapping):
            raise TypeError(
                f"groups: {pattern!r} must have a mapping of settings, got {settings!r}"
            )
        check_names(f"groups: {pattern!r} for {cls.__name__}", settings, known)
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(f"groups: {pattern!r} is no regular expression: {error}") from error


def _count_total_steps(schedule: LRScheduler | None) -> int | None:
    """Return after how many steps a schedule ends, warm-up included; None if it does not."""
    if isinstance(schedule, lr_scheduler.SequentialLR):
        last = _count_total_steps(schedule._schedulers[-1])
        return None if last is None else schedule._milestones[-1] + last
    length: int | None = getattr(schedule, "total_steps", None)
    return length


def _create_schedule(
    optimizer: Optimizer, schedule: NamedArguments, steps: int
) -> tuple[LRScheduler, str]:
    """Return the schedule, behind its warm-up where it has one, and when it takes a step."""
    if not isinstance(schedule, Mapping):
        raise TypeError(f"schedule must be a mapping with a name or None, got {schedule!r}")
    own = dict(schedule)
    per, warmup = own.pop("per", "epoch"), own.pop("warmup", 0)
    factor = own.pop("warmup_factor", 0.1)
    if per not in _PERIODS:
        raise ValueError(f"schedule: per must be 'epoch' or 'step', got {per!r}")
    if not isinstance(warmup, int) or warmup < 0:
        raise ValueError(f"schedule: warmup must be a number of epochs, got {warmup!r}")
    check_number("schedule: warmup_factor", factor)
    if not 0 < factor <= 1:
        raise ValueError(f"schedule: warmup_factor must be above 0 and at most 1, got {factor!r}")
    if not warmup:
        return instantiate(own, _SCHEDULES, "schedule", optimizer), per
    length = warmup * (steps if per == "step" else 1)
    rise = lr_scheduler.LinearLR(optimizer, start_factor=factor, total_iters=length)
    then = instantiate(own, _SCHEDULES, "schedule", optimizer)
    return lr_scheduler.SequentialLR(optimizer, [rise, then], milestones=[length]), per
