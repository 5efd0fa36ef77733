"""The processes that share one call: which of them this is, and where they wait for another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

__all__ = ["Processes", "get_processes", "working_alone"]

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_ALONE: ContextVar[bool] = ContextVar("alone", default=False)
_PATIENCE = timedelta(days=7)  # for a process whose batches take longer than the others'


@dataclass(frozen=True)
class Processes:
    """One of the processes that share the work.

    Attributes:
        rank: Of this one; 0 is the main process.
        count: Of them.
        wait: Returns when all have called it.
        disconnect: Ends their connection, before they exit.
        device: Where this one is to work.
    """

    rank: int = 0
    count: int = 1
    wait: Callable[[], Any] = lambda: None
    disconnect: Callable[[], Any] = lambda: None
    device: str = "cpu"

    @property
    def is_main(self) -> bool:
        """Return whether this is the process that starts folders and prints."""
        return self.rank == 0


def get_processes() -> Processes:
    """Return this process among those that `accelerate launch`, `torchrun` or `mpirun` started.

    On CPUs accelerate starts several by `--multi_gpu`, which needs no GPU, or through `mpirun`;
    with `--cpu` alone it starts a single one.
    """
    if _ALONE.get():
        return Processes()
    several = any(int(os.environ.get(name) or 1) > 1 for name in _SIZES)
    if not several and not torch.distributed.is_initialized():
        return Processes()
    from accelerate import PartialState

    forced = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    state = PartialState(cpu=forced or not torch.accelerator.is_available(), timeout=_PATIENCE)
    return Processes(
        state.process_index,
        state.num_processes,
        state.wait_for_everyone,
        state.destroy_process_group,
        str(state.device),
    )


@contextmanager
def working_alone() -> Iterator[None]:
    """Make each process work by itself inside the block, whoever launched it."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)
