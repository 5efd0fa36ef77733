"""Ctrl-C between two steps: within one, a net is neither what it was nor what it will be."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from types import FrameType

__all__ = ["Stop", "deaf", "interruptible"]


@dataclass
class Stop:
    """Whether somebody has asked for an end."""

    asked: bool = False


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Within the block a first Ctrl-C is noted; a second one interrupts at once.

    Outside of the main thread, which alone gets signals, and in a process that ignores Ctrl-C
    nothing changes.
    """
    stop = Stop()
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or before in (signal.SIG_IGN, None):
        yield stop
        return

    def note(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def deaf() -> Iterator[None]:
    """Processes that start within the block never hear Ctrl-C; this one does, now or at its end."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    resource_tracker.ensure_running()  # its start unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
