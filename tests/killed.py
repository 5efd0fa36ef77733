"""Work that is killed, in processes of a fork server, which has all imports done and one thread."""

import multiprocessing
import os
import random
import signal
import threading
from functools import cache

import pytest
import torch
from tqdm import tqdm

posix = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs fork and SIGKILL")

# A process has one fork server, so that these are of all tests that ask for it. Some are what
# torch imports late, at the first pass on its meta device.
PRELOADED = [
    "test_evaluate_resume", "test_fit_resume", "retrainings", "xcam._roar", "xcam._evaluate",
    "xcam._fit", "xcam.metrics", "xcam.checkpoints", "pandas", "torchvision", "torch._dynamo",
    "torch._refs", "torch._decomp",
]  # fmt: skip


@cache
def server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def started(work, *arguments, dies_at=None):
    """A process that has begun to work; `dies_at` has it kill itself at that write to the disk."""
    receiver, sender = server().Pipe(duplex=False)
    process = server().Process(target=_child, args=(sender, dies_at, work, arguments))
    process.start()
    sender.close()
    assert receiver.poll(120)
    receiver.recv()
    return process


def _child(begun, dies_at, work, arguments):
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its semaphores would outlive a process that is killed
    if dies_at is not None:
        written, sync = [], os.fsync

        def fsync(descriptor):
            written.append(descriptor)
            if len(written) == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            sync(descriptor)

        os.fsync = fsync
    begun.send(True)
    work(*arguments)


def killed_at_random(start, look, check, latest, kills, standings, seed=0):
    """Kills work at random moments until it has ended, and after that has it done anew.

    Args:
        start: Starts or goes on with the work of a number, which counts those that are done.
        look: How far the work of a number is; something that can be hashed.
        check: Is called with the number of each work that is done.
        latest: The longest that work is left alone at first, in seconds. It should be a share of
            the whole, so that work is killed several times before it is done.
        kills: How many there are at least.
        standings: How many different ones there are at least; with few of them the moments were
            not those at which something happens.
        seed: Of the moments.
    """
    dice, seen, done = random.Random(seed), set(), 0
    while (killing := kills > 0 or len(seen) < standings) or not done:
        process = start(done)
        process.join(dice.uniform(0, latest) if killing else None)
        if process.exitcode is None:
            process.kill()
            process.join()
        now = look(done)
        if process.exitcode == 0:
            check(done)
            done += 1
            latest /= 1.3
        else:
            assert process.exitcode == -signal.SIGKILL
            kills -= 1
            if now in seen:  # a busy machine: it did nothing in its time
                latest *= 1.3
        seen.add(now)
