"""Time limits of work that may hang: of a block in the main thread, and of the process."""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["OutOfTimeError", "cut_after", "exit_after"]


class OutOfTimeError(KeyboardInterrupt):
    """The time of a block is over: like Ctrl-C, which pytest and evaluations stop at."""


@contextmanager
def cut_after(limit: float) -> Iterator[None]:
    """Raise `OutOfTimeError` wherever the block is when its seconds are over."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise OutOfTimeError(f"cut after {limit:.0f} s")

    earlier = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(limit, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def exit_after(limit: float) -> None:
    """End the process after some seconds, also inside a call that no signal interrupts."""
    faulthandler.dump_traceback_later(limit, exit=True)
