"""Leave no trace: after a call, in success and in failure, everything is as the caller left it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from xcam.core import Method, Metric, Target
from xcam.testing.checks.facets import FACETS, State, World, mixed, promised
from xcam.testing.probe import (
    CLASSES,
    ContractError,
    Fuse,
    PlannedError,
    explained,
    placed,
    probe_of,
)

__all__ = ["Record", "Visit", "differences", "leaves", "passes_errors_on", "visits"]


class Visit(Protocol):
    """One call of a method or metric, and where it is made to fail; `str` says which."""

    @property
    def planned(self) -> bool:
        """Whether a failure is planned."""

    def world(self) -> World:
        """What the caller owns, afresh."""

    def run(self, world: World) -> None:
        """Makes the call."""


@dataclass(frozen=True)
class _Visit:
    """One call of a method.

    Attributes:
        method: The method, with its layer.
        direct: Calls `maps` itself, on a model in eval mode and frozen, as promised to it;
            otherwise `explain`, on a model in a mixture of states.
        net: Counts the passes, and fails one.
        scores: Counts the uses of a callable target, and fails one; None for targets of ints.
    """

    method: Method
    direct: bool
    net: Fuse = field(default_factory=Fuse)
    scores: Fuse | None = None

    def __str__(self) -> str:
        call = "maps" if self.direct else "explain"
        if self.net.limit:
            return f"{call} whose model fails in pass {self.net.limit}"
        if self.scores:
            return f"{call} whose target fails at score {self.scores.limit}"
        return call

    @property
    def planned(self) -> bool:
        """Whether a failure is planned."""
        return self.net.limit is not None or self.scores is not None

    @property
    def failed(self) -> bool:
        """Whether the planned failure has happened."""
        return any(fuse and fuse.passes == fuse.limit for fuse in (self.net, self.scores))

    def world(self) -> World:
        """A fresh one."""
        world = promised(self.method) if self.direct else mixed(self.method)
        probe_of(world.net).fuse = self.net
        return world

    def run(self, world: World) -> None:
        """Makes the call.

        Raises:
            PlannedError: As planned, if the method lets it through.
        """
        target: Any = list(CLASSES[:3]) if self.scores is None else _callable(self.scores)
        if self.direct:
            self.method.maps(world.net, world.images, Target.of(target, world.images))
        else:
            explained(self.method, world.net, world.images, target, batch_size=2)


def visits(method: Method) -> Iterator[_Visit]:
    """Success; failure in the first, a middle and the last pass; in the first and second score.

    Whoever asks for the next visit has made the one before, which says how many passes there are.
    """
    method = placed(method)
    for direct in (False, True):
        success = _Visit(method, direct)
        yield success
        for fuse in success.net.failures():
            yield _Visit(method, direct, net=fuse)
        for n in (1, 2):
            yield _Visit(method, direct, scores=Fuse(n))


def _callable(fuse: Fuse) -> Callable[[object, Tensor], Tensor]:
    def score(output: object, rows: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            raise TypeError(f"the target was given a {type(output).__name__} as the model's output")
        fuse.burn(nn.Identity())
        return output.gather(1, torch.tensor(CLASSES, device=rows.device)[rows, None])[:, 0]

    return score


class Record:
    """What a method or metric changes, in each facet; its calls are made once, when first needed.

    Args:
        subject: The method or metric.
        visits: Starts its calls.
        facets: What is looked at before and after each.
    """

    def __init__(
        self,
        subject: Method | Metric,
        visits: Callable[[], Iterable[Visit]],
        facets: Mapping[str, Callable[[World], State]] = FACETS,
    ) -> None:
        self._subject, self._visits, self._facets = subject, visits, facets

    def require_unchanged(self, facet: str) -> None:
        """Checks one facet.

        Raises:
            ContractError: Something there was changed.
        """
        if facet in self._changes:
            raise ContractError(f"{self._subject.spec.name} changed {self._changes[facet]}")

    @cached_property
    def _changes(self) -> dict[str, str]:
        changes: dict[str, str] = {}
        for visit in self._visits():
            world = visit.world()
            _draw()  # so that whoever seeds a generator finds it in another state
            before = {facet: look(world) for facet, look in self._facets.items()}
            try:
                visit.run(world)
            except Exception:
                if not visit.planned:
                    raise
            for facet, look in self._facets.items():
                for change in differences(before[facet], look(world)):
                    changes.setdefault(facet, f"{change}, seen after {visit}; {_REMEDY}")
        return changes


def leaves(facet: str) -> str:
    """The name of the check of a facet."""
    return f"leaves_{facet}"


_REMEDY = "put it back in a `finally`, or work inside xcam.engine.untouched"


def _draw() -> None:
    torch.rand(1)
    np.random.rand()
    random.random()


def differences(before: State, after: State) -> Iterator[str]:
    """What is not the same in two looks at a facet, in words."""
    for key in {**before, **after}:
        if not _same(before.get(key), after.get(key)):
            yield key


def _same(first: Any, second: Any) -> bool:  # noqa: ANN401
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        # NaN stands for "no box" in truth, and is not equal to itself.
        alike = first.dtype == second.dtype and first.shape == second.shape
        return alike and bool(((first == second) | (first.isnan() & second.isnan())).all())
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    return type(first) is type(second) and bool(first == second)


def passes_errors_on(method: Method) -> None:
    """An error in the model or the target reaches the caller."""
    for visit in visits(method):
        try:
            visit.run(visit.world())
        except PlannedError:
            continue
        except (TypeError, ValueError):  # a method that needs a class may refuse a callable
            if visit.scores is None or visit.failed:
                raise
        if visit.failed:
            raise ContractError(
                f"{method.spec.name} swallowed the error of {visit}; let it reach the caller"
            )
