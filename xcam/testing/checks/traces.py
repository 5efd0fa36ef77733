"""Leave no trace: after a call, in success and in failure, everything is as the caller left it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from xcam.core import Target
from xcam.testing.checks.facets import (
    FACETS,
    AnySubject,
    World,
    compare_states,
    make_frozen_world,
    make_mixed_world,
)
from xcam.testing.method_subject import MethodSubject
from xcam.testing.probe import ContractError, Fuse, PlannedError

__all__ = ["Record", "name_check"]

_REMEDY = "put it back in a `finally`, or work inside xcam.engine.untouched"


@dataclass(frozen=True)
class Call:
    """One call of a method or metric, and where it is made to fail.

    Attributes:
        subject: The method or metric.
        direct: Calls `maps` itself, on a model in eval mode and frozen, as promised to it;
            otherwise `explain` or `score`, on a model in a mixture of states.
        fuse: Counts the passes of the net, and fails one.
        target: Counts the uses of a callable target, and fails one; None for targets of ints.
    """

    subject: AnySubject
    direct: bool
    fuse: Fuse = field(default_factory=Fuse)
    target: FailingTarget | None = None

    def __str__(self) -> str:
        """Return which call it is, for messages."""
        verb = "explain" if isinstance(self.subject, MethodSubject) else "score"
        verb = "maps" if self.direct else verb
        if self.fuse.limit:
            return f"{verb} whose model fails in pass {self.fuse.limit}"
        return f"{verb} whose target fails at score {self.target.limit}" if self.target else verb

    @property
    def is_planned(self) -> bool:
        """Return whether a failure is planned."""
        return self.fuse.limit is not None or self.target is not None

    @property
    def has_failed(self) -> bool:
        """Return whether the planned failure has happened."""
        return self.fuse.blown or (self.target is not None and self.target.blown)

    def make_world(self) -> World:
        """Make what the caller owns, afresh."""
        make = make_frozen_world if self.direct else make_mixed_world
        return make(self.subject, self.fuse)

    def run(self, world: World) -> None:
        """Make the call.

        Raises:
            PlannedError: As planned, if the method or metric lets it through.
        """
        if not isinstance(self.subject, MethodSubject):
            self.subject.run(world.case, world.net, batch_size=2)
            return
        target = list(world.case.classes) if self.target is None else self.target
        if self.direct:
            made = Target.of(target, world.images)
            self.subject.placed.maps(world.net, world.images, made)
        else:
            self.subject.explain(world.case, world.net, target, batch_size=2)


class FailingTarget:
    """A callable target that reads off the logit of a class, and fails at one of its uses."""

    def __init__(self, limit: int, classes: tuple[int, ...]) -> None:
        self.limit, self.classes = limit, classes
        self.uses, self.blown = 0, False

    def __call__(self, output: object, rows: Tensor) -> Tensor:
        """Return (R,) scores of rows of the output."""
        if not isinstance(output, Tensor):
            raise TypeError(f"the target was given a {type(output).__name__} as the model's output")
        self.uses += 1
        if self.uses == self.limit:
            self.blown = True
            raise PlannedError(f"score {self.uses} was made to fail")
        classes = torch.tensor(self.classes, device=rows.device)
        return output.gather(1, classes[rows, None])[:, 0]


def plan_calls(subject: AnySubject) -> Iterator[Call]:
    """Yield calls: success; failure in some passes; failure in the first and second score.

    Whoever asks for the next call has made the one before, which says how many passes there are.
    """
    is_method = isinstance(subject, MethodSubject)
    for direct in (False, True) if is_method else (False,):
        success = Call(subject, direct)
        yield success
        for fuse in success.fuse.plan_failures():
            yield Call(subject, direct, fuse)
        if is_method:
            for limit in (1, 2):
                target = FailingTarget(limit, subject.build_case().classes)
                yield Call(subject, direct, target=target)


class Record:
    """What a method or metric leaves changed or swallows; its calls are made once, when needed.

    Args:
        subject: The method or metric.
    """

    def __init__(self, subject: AnySubject) -> None:
        self._subject = subject

    def require_unchanged(self, facet: str) -> None:
        """Check one facet of what the caller owns.

        Raises:
            ContractError: Something there was changed.
        """
        changes, _ = self._observed
        if facet in changes:
            raise ContractError(f"{self._subject.name} changed {changes[facet]}")

    def passes_errors_on(self) -> None:
        """Check that an error in the model or the target reaches the caller.

        Raises:
            ContractError: The subject swallowed one, or raised another instead.
        """
        _, hidden = self._observed
        if hidden:
            raise ContractError(
                f"{self._subject.name} swallowed the error of {hidden[0]}; let it reach the caller"
            )

    @cached_property
    def _observed(self) -> tuple[dict[str, str], list[Call]]:
        changes: dict[str, str] = {}
        hidden = []
        for call in plan_calls(self._subject):
            world = call.make_world()
            _draw()  # so that whoever seeds a generator finds it in another state
            before = {facet: look(world) for facet, look in FACETS.items()}
            if _hides_failure(call, world):
                hidden.append(call)
            for facet, look in FACETS.items():
                for change in compare_states(before[facet], look(world)):
                    changes.setdefault(facet, f"{change}, seen after {call}; {_REMEDY}")
        return changes, hidden


def _hides_failure(call: Call, world: World) -> bool:
    """Make a call, and return whether its failure happened without reaching the caller.

    Whatever is raised before that is no concern of this check: a method that refuses a callable
    target is one that does not keep `takes_a_callable`.
    """
    try:
        call.run(world)
    except PlannedError:
        return False
    except Exception:
        if not call.is_planned:
            raise
    return call.has_failed


def name_check(facet: str) -> str:
    """Return the name of the check of a facet."""
    return f"leaves_{facet}"


def _draw() -> None:
    torch.rand(1)
    np.random.rand()
    random.random()
