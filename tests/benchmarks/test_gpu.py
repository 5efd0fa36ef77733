"""The script that measures on a GPU runs on a CPU with tiny sizes, so that its faults show here."""

import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def deadline(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("deadline")


@pytest.mark.timeout(0)  # which uses the same timer
def test_block_is_cut_inside_its_loops(deadline):
    thread = threading.Thread(target=time.sleep, args=(20,), daemon=True)
    thread.start()
    begin, earlier = time.perf_counter(), signal.getsignal(signal.SIGALRM)

    def loop():
        while True:
            torch.rand(9).sum()

    for hang in (loop, thread.join):
        with pytest.raises(deadline.OutOfTimeError, match="cut after 0 s"), deadline.cut_after(0.1):
            hang()
    with deadline.cut_after(0.1):
        pass
    time.sleep(0.15)
    assert time.perf_counter() - begin < 10
    assert signal.getsignal(signal.SIGALRM) is earlier


@pytest.mark.timeout(0)
def test_suite_stops_in_the_middle_of_a_test(deadline, tmp_path):
    # The limit comes to its end in the test, however long pytest takes to get there.
    (tmp_path / "test_slow.py").write_text(
        "import signal, time\n"
        "def test_slow():\n"
        "    assert signal.getitimer(signal.ITIMER_REAL)[0] > 0\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0.1)\n"
        "    time.sleep(20)\n"
        "def test_later(): open('ran', 'w')\n"
    )
    script = (
        "import sys, pytest, deadline\n"
        "with deadline.cut_after(300): code = pytest.main(['-q', '--timeout=0', 'test_slow.py'])\n"
        "sys.exit(code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")}
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=False)
    assert run.returncode == pytest.ExitCode.INTERRUPTED
    assert not (tmp_path / "ran").exists()


def test_every_section_runs_on_a_cpu():
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--tiny", "--device", "cpu"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout
    assert "failed: none" in printed
    sections = re.findall(r"^(\w+): [\d.]+ s$", printed, re.MULTILINE)
    assert sections == [
        "tests", "training", "resume", "host_copies", "streams", "memory", "half", "curves",
        "rise", "gradcam", "chunks",
    ]  # fmt: skip
    assert re.findall(r"^\| (\w+) \| cpu \|$", printed, re.MULTILINE) == [
        "aic", "max_box_acc", "max_box_acc_v2", "sic",
    ]  # fmt: skip
    assert "| 2 | 0.0e+00 |" in printed  # a resumed training ends with the same bits
    assert "passed" in printed
