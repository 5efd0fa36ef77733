"""Leave no trace: after a call, in success and in failure, everything is as the caller left it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xcam.core import Method, Target
from xcam.testing.facets import FACETS, State, World, mixed, promised
from xcam.testing.probe import (
    CLASSES,
    ContractError,
    Fuse,
    PlannedError,
    explained,
    placed,
)

__all__ = ["Record", "passes_errors_on"]


@dataclass(frozen=True)
class _Visit:
    """One call of the method, and where it is made to fail.

    Attributes:
        direct: Calls `maps` itself, on a model in eval mode and frozen, as promised to it;
            otherwise `explain`, on a model in a mixture of states.
        net: Counts the passes, and fails one.
        scores: Counts the uses of a callable target, and fails one; None for targets of ints.
    """

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
    def failed(self) -> bool:
        """Whether the planned failure has happened."""
        return any(fuse and fuse.passes == fuse.limit for fuse in (self.net, self.scores))

    def world(self) -> World:
        """A fresh one."""
        world = promised() if self.direct else mixed()
        world.net.fuse = self.net
        return world

    def run(self, method: Method, world: World) -> None:
        """Makes the call.

        Raises:
            PlannedError: As planned, if the method lets it through.
        """
        target: Any = list(CLASSES[:3]) if self.scores is None else _callable(self.scores)
        if self.direct:
            method.maps(world.net, world.images, Target.of(target, world.images))
        else:
            explained(method, world.net, world.images, target, batch_size=2)


def _visits(method: Method) -> Iterator[_Visit]:
    """Success; failure in the first, a middle and the last pass; in the first and second score.

    Whoever asks for the next visit has made the one before, which says how many passes there are.
    """
    for direct in (False, True):
        success = _Visit(direct)
        yield success
        passes = success.net.passes
        for n in sorted({1, (passes + 1) // 2, passes} - {0}):
            yield _Visit(direct, net=Fuse(n))
        for n in (1, 2):
            yield _Visit(direct, scores=Fuse(n))


def _callable(fuse: Fuse) -> Callable[[object, Tensor], Tensor]:
    def score(output: object, rows: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            raise TypeError(f"the target was given a {type(output).__name__} as the model's output")
        fuse.burn(nn.Identity())
        return output.gather(1, torch.tensor(CLASSES, device=rows.device)[rows, None])[:, 0]

    return score


class Record:
    """What a method changes, in each of `FACETS`; its calls are made once, when first needed."""

    def __init__(self, method: Method) -> None:
        self._method = method

    def require_unchanged(self, facet: str) -> None:
        """Checks one facet.

        Raises:
            ContractError: The method changed something there.
        """
        if facet in self._changes:
            raise ContractError(f"{self._method.spec.name} changed {self._changes[facet]}")

    @cached_property
    def _changes(self) -> dict[str, str]:
        method = placed(self._method)
        changes: dict[str, str] = {}
        for visit in _visits(method):
            world = visit.world()
            _draw()  # so that a method that seeds a generator finds it in another state
            before = {facet: look(world) for facet, look in FACETS.items()}
            try:
                visit.run(method, world)
            except Exception:
                if visit.net.limit is None and visit.scores is None:
                    raise
            for facet, look in FACETS.items():
                for change in _differences(before[facet], look(world)):
                    changes.setdefault(facet, f"{change}, seen after {visit}; {_REMEDY}")
        return changes


_REMEDY = "put it back in a `finally`, or work inside xcam.state.untouched"


def _draw() -> None:
    torch.rand(1)
    np.random.rand()
    random.random()


def _differences(before: State, after: State) -> Iterator[str]:
    for key in {**before, **after}:
        if not _same(before.get(key), after.get(key)):
            yield key


def _same(first: Any, second: Any) -> bool:  # noqa: ANN401
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    return type(first) is type(second) and bool(first == second)


def passes_errors_on(method: Method) -> None:
    """An error in the model or the target reaches the caller."""
    method = placed(method)
    for visit in _visits(method):
        try:
            visit.run(method, visit.world())
        except PlannedError:
            continue
        except (TypeError, ValueError):  # a method that needs a class may refuse a callable
            if visit.scores is None or visit.failed:
                raise
        if visit.failed:
            raise ContractError(
                f"{method.spec.name} swallowed the error of {visit}; let it reach the caller"
            )
