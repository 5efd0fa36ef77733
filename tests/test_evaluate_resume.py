"""An evaluation that is stopped at any moment goes on, and ends with the rows of one that is not.

What is killed are processes of a fork server, which has all imports done and one thread.
"""

import multiprocessing
import os
import random
import signal
import threading
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from evaluations import Pictures, assert_same_rows, parts, rows
from torch.utils.data import DataLoader
from tqdm import tqdm

import xcam
from xcam.core import Metric, MetricSpec
from xcam.models.toy import GapNet

KILLS = 20
METRICS = ("deletion", "sparseness")


def evaluate(out, data=None, batch_size=2, model=None, **arguments):
    data = Pictures(64) if data is None else data
    arguments = {"methods": "gradcam", "metrics": METRICS, "save_maps": True, **arguments}
    loader = DataLoader(data, batch_size=batch_size)
    return xcam.evaluate(model or GapNet(), loader, out=out, **arguments)


def work(out, begun, dies_at=None):
    """What a killed process does; `dies_at` has it kill itself at that write to the disk."""
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
    evaluate(out)


@pytest.fixture(scope="module")
def server():
    context = multiprocessing.get_context("forkserver")
    # Also what torch imports late, at the first pass on its meta device.
    late = ["torch._dynamo", "torch._refs", "torch._decomp"]
    context.set_forkserver_preload(
        ["test_evaluate_resume", "xcam._evaluate", "xcam.metrics", *late]
    )
    return context


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A whole evaluation: its folder, and how long it took."""
    out = tmp_path_factory.mktemp("unbroken")
    evaluate(out / "warm")
    begun = time.perf_counter()
    evaluate(out / "rows")
    return out / "rows", time.perf_counter() - begun


def started(server, *arguments):
    receiver, sender = server.Pipe(duplex=False)
    process = server.Process(target=work, args=(arguments[0], sender, *arguments[1:]))
    process.start()
    sender.close()
    assert receiver.poll(120)
    receiver.recv()
    return process


def test_killed_at_random_moments_nothing_is_lost_and_nothing_doubled(server, unbroken, tmp_path):
    expected, seconds = unbroken
    dice, kills, finished = random.Random(0), 0, 0
    progress = set()
    # A share of the whole, so that an evaluation is killed several times before it ends.
    latest = 0.3 * seconds
    # Without three standings the moments were not those at which something happens.
    while kills < KILLS or len(progress) < 3 or not finished:
        out = tmp_path / str(finished)
        process = started(server, out)
        killing = kills < KILLS or len(progress) < 3
        process.join(dice.uniform(0, latest) if killing else None)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += process.exitcode == -signal.SIGKILL
        now = len(parts(out)) if (out / "rows").is_dir() else 0
        if process.exitcode == 0:
            finished += 1
            assert_same_rows(rows(out), rows(expected))
            assert parts(out) == parts(expected)
            latest /= 1.3
        elif now in progress:  # a busy machine: it did nothing in its time
            latest *= 1.3
        progress.add(now)


@pytest.mark.parametrize("write", [1, 2, 3, 6, 7, 12])
def test_killed_at_a_write(server, unbroken, tmp_path, write):
    """The manifest, the maps of a method, the rows: each may be the one that is cut short."""
    process = started(server, tmp_path, write)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left = [path.name for path in tmp_path.rglob(".*.part")]
    assert len(left) == 1
    evaluate(tmp_path)
    assert list(tmp_path.rglob(".*.part")) == []
    assert_same_rows(rows(tmp_path), rows(unbroken[0]))
    assert parts(tmp_path) == parts(unbroken[0])
    maps = [sorted(p.relative_to(out) for p in (out / "maps").rglob("*.safetensors"))
            for out in (tmp_path, unbroken[0])]  # fmt: skip
    assert maps[0] == maps[1]


@dataclass(frozen=True)
class Interrupted(Metric):
    """Somebody presses Ctrl-C at its third batch."""

    seen: ClassVar[list] = []
    spec: ClassVar[MetricSpec] = MetricSpec(
        name="interrupted", title="", paper="", formula="", higher_is_better=None, bounds=(0, 1)
    )

    def score(self, model, images, explanation, truth=None):
        self.seen.append(len(images))
        if len(self.seen) == 7:
            signal.raise_signal(signal.SIGINT)
        return images.flatten(1).mean(1)

    def finish(self, mean):
        return mean


def test_control_c_leaves_a_folder_to_go_on_with(tmp_path):
    Interrupted.seen.clear()
    settings = {"metrics": Interrupted(), "controls": False, "methods": ["gradcam", "sobel"]}
    data = Pictures(10)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "a", data, **settings)
    assert len(parts(tmp_path / "a")) == 3
    data.loaded.clear()
    results = evaluate(tmp_path / "a", data, **settings)
    assert sorted(set(data.loaded)) == [
        0,
        6,
        7,
        8,
        9,
    ]  # what tells the data
    assert len(Interrupted.seen) == 7 + 4
    evaluate(tmp_path / "b", Pictures(10), **settings)
    assert_same_rows(rows(tmp_path / "a"), rows(tmp_path / "b"))
    assert set(results.table()["n"]) == {10}


def test_what_is_done_is_not_done_again(tmp_path):
    data = Pictures(6)
    first = evaluate(tmp_path, data).table()
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    data.loaded.clear()
    again = evaluate(tmp_path, data).table()
    assert set(data.loaded) == {0, 5}  # which tell the data from another
    assert again.equals(first)
    assert written == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}


def test_a_part_that_is_taken_away_is_made_again(tmp_path):
    evaluate(tmp_path / "a", Pictures(6))
    expected = rows(tmp_path / "a")
    (tmp_path / "a" / "rows" / "batch-00000001.parquet").unlink()
    data = Pictures(6)
    evaluate(tmp_path / "a", data)
    assert sorted(set(data.loaded)) == [0, 2, 3, 5]
    assert_same_rows(rows(tmp_path / "a"), expected)
