"""Forks of a process in which other threads hold something of xcam."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["importing", "reset_in_forks"]

_PATIENCE = 60.0  # seconds; a fork must not wait for ever for an import that does
_changed = threading.Condition()
_threads: list[int] = []  # the threads that import, once for each import inside another
_resets: list[Callable[[], None]] = []


def reset_in_forks(function: Callable[[], None]) -> Callable[[], None]:
    """Call the decorated function in each forked process as it begins.

    It forgets what another thread holds, a lock for instance: the thread that would release it is
    not in the new process.
    """
    _resets.append(function)
    return function


@contextmanager
def importing() -> Iterator[None]:
    """Hold off forks of other threads inside a block that imports modules.

    A module that is half imported stays so in a forked process, whose own import of it would wait
    for ever: the thread that would end it is not there. Threads do not wait for each other here.
    """
    thread = threading.get_ident()
    with _changed:
        _threads.append(thread)
    try:
        yield
    finally:
        with _changed:
            _threads.remove(thread)
            _changed.notify_all()


def _wait_for_others() -> None:
    thread = threading.get_ident()
    _changed.acquire()
    _changed.wait_for(lambda: all(other == thread for other in _threads), _PATIENCE)


def _start_anew() -> None:
    thread = threading.get_ident()
    _threads[:] = [other for other in _threads if other == thread]
    _changed.release()
    for reset in _resets:
        reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_wait_for_others, after_in_parent=_changed.release, after_in_child=_start_anew
    )
