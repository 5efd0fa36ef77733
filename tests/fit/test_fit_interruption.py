"""Ctrl-C is for the training alone: what loads its images does not hear it."""

import multiprocessing
import signal
import threading

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from trainings import Noisy, plain, train

from xcam._fit.source import Source, block_sigint

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks")


class Heard(Dataset):
    """As label whether Ctrl-C would reach the process that reads the item."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.zeros(3, 8, 8), int(signal.SIGINT not in signal.pthread_sigmask(0, []))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_ignore_sigint_from_their_first_moment(context):
    """Blocked, not ignored by what a worker runs first: importing torch takes it seconds."""
    loader = DataLoader(Heard(), num_workers=1, multiprocessing_context=context)
    source = Source.wrap(loader, "data", 0)
    (found,) = list(source.load([[(0, index) for index in range(4)]], seed=0))
    assert found[1].tolist() == [0, 0, 0, 0]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


class Failing(nn.Module):
    def forward(self, logits, labels):
        raise ZeroDivisionError


def test_failed_step_ends_the_workers():
    """Its traceback keeps what reads them, and they would be waited for as that is collected."""
    with pytest.raises(ZeroDivisionError) as failed:
        plain(Noisy(8), batch_size=2, workers=2, criterion=Failing())
    assert "_run_steps" in [entry.name for entry in failed.traceback]
    assert multiprocessing.active_children() == []


def press():
    """Ctrl-C, which the main thread gets: another one may take its time, and the test be over."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_blocked_interrupt_is_raised_at_the_end_of_the_block():
    reached = []

    def start():
        with block_sigint():
            press()
            reached.append(True)

    with pytest.raises(KeyboardInterrupt):
        start()
    assert reached
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_interrupt_while_workers_start_ends_the_first_step(tmp_path, monkeypatch):
    """Pressed before the first image: the training stops after a step, and goes on."""
    started = Source.load

    def pressed(source, *arguments, **others):
        press()
        return started(source, *arguments, **others)

    monkeypatch.setattr(Source, "load", pressed)
    with pytest.raises(KeyboardInterrupt, match="stopped at epoch 1, step 1, which is stored"):
        train(tmp_path)
