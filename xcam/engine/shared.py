"""Each distinct pass once: results that are kept while a batch is worked on.

What several methods or metrics ask of a model is computed by functions marked `@shareable`. Inside
of a block of `share_passes` such a function computes once for the same arguments; outside of any it
just computes:

    @shareable
    def blurred_logits(model, images, sigma): ...

    with share_passes(images):
        first = blurred_logits(model, images, 2.0)
        again = blurred_logits(model, images, 2.0)  # no pass

A result is kept for the same memory in the same state: not if a tensor, a weight, a mode, a hook or
an attribute of the model has changed in between, nor if somebody has written to the result. Unseen
are only weights, and tensors on an accelerator, of which a few values are written through `.data`
or numpy, and what lies inside of the objects and lists that are attributes of a module. It is
counted as if it had been computed, in `RunSettings.passes`; `shared_passes` says how many were not.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch
from torch import Tensor

from xcam.engine import forward
from xcam.engine.forward import RunSettings
from xcam.engine.identity import Identity, Unidentified, find_storage, read_version

if TYPE_CHECKING:
    from xcam.engine.paths import RepeatedLayer

__all__ = ["keep_nothing", "share_passes", "shareable", "synchronize"]

P = ParamSpec("P")
R = TypeVar("R")

_BUDGET = 2**28  # bytes that a block keeps; what comes then is computed each time


@dataclass(frozen=True, eq=False)
class _Entry:
    """A result that is kept.

    Attributes:
        result: What the function returned.
        held: What its key refers to by address.
        versions: The tensors of the result, as they were.
        passes: Images through the model that it took, or would have taken by itself.
        seconds: Likewise.
        notes: What was noted on the way.
        repeated_layers: Likewise; see `RunSettings`.
    """

    result: object
    held: Sequence[object]
    versions: Sequence[tuple[Tensor, int]]
    passes: int
    seconds: float
    notes: Sequence[str]
    repeated_layers: dict[str, RepeatedLayer]

    def is_intact(self) -> bool:
        """Return whether nobody has written to the result."""
        return all(tensor._version == version for tensor, version in self.versions)

    def account(self, runtime: RunSettings) -> None:
        """Count what the result would have cost, and note again what was noted."""
        runtime.passes += self.passes
        runtime.shared_passes += self.passes
        runtime.shared_seconds += self.seconds
        _add_notes(runtime, self.notes, self.repeated_layers)


@dataclass(eq=False)
class _Scope:
    """The results that one block keeps.

    Attributes:
        tensors: What it was opened for.
        entries: The results by their keys.
        room: Bytes that are left of the budget.
        weights: Samples of the models' weights, as `Identity` keeps them.
    """

    tensors: Sequence[Tensor] = ()
    entries: dict[Hashable, _Entry] = field(default_factory=dict)
    room: int = _BUDGET
    weights: dict[Hashable, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find out which memory is known."""
        self.known = {find_storage(tensor) for tensor in self.tensors}

    def keep(self, identity: Identity, entry: _Entry) -> None:
        """Keep a result if there is room for it and for what its key holds."""
        tensors = [*identity.tensors, *(tensor for tensor, _ in entry.versions)]
        storages = {find_storage(one): one.untyped_storage().nbytes() for one in tensors}
        size = sum(size for place, size in storages.items() if place not in self.known)
        if size <= self.room:
            self.room -= size
            self.entries[identity.key] = entry


_scopes: ContextVar[tuple[_Scope, ...]] = ContextVar("xcam_shared", default=())


@contextmanager
def share_passes(*tensors: Tensor) -> Iterator[None]:
    """Compute what `shareable` functions return once inside a block, in this thread.

    Blocks may be nested: a result belongs to the outermost block that was opened for all tensors
    that it was computed from, such as the clean pass of a batch, or else to the innermost one. It
    is freed with its block, which keeps at most 256 MB.

    Args:
        tensors: What the block is about, such as a batch of images.
    """
    try:
        scope = _Scope(tensors)
    except Unidentified:
        scope = _Scope()
    token = _scopes.set((*_scopes.get(), scope))
    try:
        yield
    finally:
        _scopes.reset(token)


@contextmanager
def keep_nothing() -> Iterator[None]:
    """Compute `shareable` functions each time inside a block, about tensors of its own."""
    token = _scopes.set(())
    try:
        yield
    finally:
        _scopes.reset(token)


def shareable(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a function whose result depends on its arguments alone, to be computed once a block.

    It returns tensors without a graph, in tuples or alone, and treats them as read-only, as does
    whoever calls it. Settings are compared by their values, tensors and models by identity and
    state, other objects and callables by identity.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        scopes = _scopes.get()
        if not scopes:
            return function(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        try:
            identity = Identity(function, bound.arguments, scopes[0].weights)
        except Unidentified:
            return function(*args, **kwargs)
        for scope in scopes:
            entry = scope.entries.get(identity.key)
            if entry is not None and entry.is_intact():
                entry.account(forward.current_runtime())
                return entry.result  # type: ignore[return-value]  # what the function returned
        # What is computed on the way, of tensors that nobody else has, goes with this call.
        with share_passes(), forward.ensure_run() as runtime:
            result, entry = _compute(lambda: function(*args, **kwargs), identity, runtime)
        if entry is not None:
            _choose_home(scopes, identity).keep(identity, entry)
        return result

    return run


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was told to, before a clock is read."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _choose_home(scopes: Sequence[_Scope], identity: Identity) -> _Scope:
    places = {find_storage(tensor) for tensor in identity.tensors}
    return next((scope for scope in scopes if places <= scope.known), scopes[-1])


def _compute(
    function: Callable[[], R], identity: Identity, runtime: RunSettings
) -> tuple[R, _Entry | None]:
    """Return a result, and an entry of it; None if it cannot be kept."""
    device = next((tensor.device for tensor in identity.tensors), torch.device("cpu"))
    passes, shared = runtime.passes, runtime.shared_seconds
    notes, runtime.notes = runtime.notes, []
    repeated, runtime.repeated_layers = runtime.repeated_layers, {}
    synchronize(device)
    begin = time.perf_counter_ns()
    try:
        result = function()
    finally:
        made, runtime.notes = runtime.notes, notes
        found, runtime.repeated_layers = runtime.repeated_layers, repeated
        _add_notes(runtime, made, found)
    synchronize(device)
    seconds = (time.perf_counter_ns() - begin) / 1e9 + runtime.shared_seconds - shared
    try:
        versions = [(tensor, read_version(tensor)) for tensor in _list_tensors(result)]
    except Unidentified:
        return result, None
    passes = runtime.passes - passes
    return result, _Entry(result, identity.held, versions, passes, seconds, made, found)


def _list_tensors(result: object) -> list[Tensor]:
    """List the tensors in a result.

    Raises:
        Unidentified: It holds something else that may change, or a graph.
    """
    if isinstance(result, Tensor) and not result.requires_grad:
        return [result]
    if isinstance(result, tuple):
        return [tensor for part in result for tensor in _list_tensors(part)]
    if isinstance(result, bool | int | float | str | None):
        return []
    raise Unidentified


def _add_notes(
    runtime: RunSettings, notes: Sequence[str], repeated_layers: dict[str, RepeatedLayer]
) -> None:
    runtime.notes += [sentence for sentence in notes if sentence not in runtime.notes]
    runtime.repeated_layers.update(repeated_layers)
