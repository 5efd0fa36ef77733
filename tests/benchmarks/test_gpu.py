"""The script that measures on a GPU runs on a CPU with tiny sizes, so that its faults show here."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


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
        "training", "resume", "host_copies", "streams", "memory", "half", "curves", "rise",
        "gradcam", "chunks", "tests",
    ]  # fmt: skip
    assert re.findall(r"^\| (\w+) \| cpu \|$", printed, re.MULTILINE) == [
        "max_box_acc", "max_box_acc_v2",
    ]  # fmt: skip
    assert "| 2 | 0.0e+00 |" in printed  # a resumed training ends with the same bits
    assert "passed" in printed
