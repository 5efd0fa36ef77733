"""Interleaved timing, ratios with intervals, and peak memory in a process of its own."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

__all__ = [
    "Ratio",
    "best_size",
    "interleave",
    "machine",
    "peak_memory",
    "ratio",
    "seconds",
    "watch",
]

Candidate = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """The median over rounds of one candidate's time over another's, and its 95 % interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the ratio as tables print it."""
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def seconds(candidate: Candidate) -> float:
    """Time one run in seconds, the accelerator's queue included."""
    gc.collect()
    _synchronize()
    start = time.perf_counter()
    candidate()
    _synchronize()
    return time.perf_counter() - start


def interleave(candidates: dict[str, Candidate], rounds: int) -> dict[str, list[float]]:
    """Time each candidate once a round, in a new random order each round, after a warm-up.

    Whatever slows the machine for a while slows all of them alike.
    """
    order = np.random.default_rng(0)
    names = list(candidates)
    for name in names:
        candidates[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in order.permutation(names):
            times[name].append(seconds(candidates[name]))
        print(f"  round {number + 1} of {rounds}", end="\r", file=sys.stderr, flush=True)
    return times


def ratio(times: Sequence[float], reference: Sequence[float]) -> Ratio:
    """Return the median of the rounds' ratios, with a bootstrap interval of 10,000 resamples."""
    quotients = np.asarray(times) / np.asarray(reference)
    draws = np.random.default_rng(0).integers(0, len(quotients), (10_000, len(quotients)))
    medians = np.median(quotients[draws], axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return Ratio(float(np.median(quotients)), float(low), float(high))


def best_size(
    make: Callable[[int], Candidate], sizes: Sequence[int], repeats: int = 1
) -> tuple[int, Candidate]:
    """Find the batch size at which a candidate is fastest, best of `repeats` runs each."""
    best = {size: min(seconds(make(size)) for _ in range(repeats)) for size in sizes}
    size = min(best, key=best.__getitem__)
    return size, make(size)


def watch(candidate: Candidate, device: str = "cpu") -> float:
    """Measure the MB that a run takes at its peak beyond what was taken before it."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        candidate()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with _ResidentPeak() as peak:
        candidate()
    return peak.megabytes


def peak_memory(script: str, *arguments: str) -> float:
    """Run `script --memory …` in a fresh process, which prints what `watch` returns as JSON."""
    command = [sys.executable, script, "--memory", *arguments]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(answer.stdout.splitlines()[-1])["megabytes"])


def machine() -> str:
    """Describe the machine and versions in a line."""
    import xcam

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    threads = torch.get_num_threads()
    return f"{name}, {threads} threads, torch {torch.__version__}, xcam {xcam.__version__}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((ln.split(":")[1].strip() for ln in lines if ln.startswith("model name")), "CPU")


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class _ResidentPeak:
    """Samples the process's resident memory every millisecond."""

    def __enter__(self) -> _ResidentPeak:
        gc.collect()
        self.before = self.highest = self._resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.megabytes = (self.highest - self.before) / 1e6

    def _sample(self) -> None:
        while not self._stop.wait(0.001):
            self.highest = max(self.highest, self._resident())

    @staticmethod
    def _resident() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
