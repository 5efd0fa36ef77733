"""How far some work raises the peak memory of a process of its own."""

import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER = Path(__file__).parent
# Not `ru_maxrss`, in which Linux hands down the peak of the process that started this one.
STATUS = Path("/proc/self/status")

# An allocator may keep for later what it was given back, and how much differs from run to run;
# with these, memory that is freed is gone, so that a peak tells what was held.
PROMPT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "OMP_NUM_THREADS": "1",
}


def risen(code, *arguments):
    """By how many MB the peak rose within each `with rise()` of a script in this folder."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nfrom peaks import rise\n{code}", *arguments],
        cwd=FOLDER,
        env={**os.environ, **PROMPT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [float(line) for line in done.stdout.splitlines()]


@contextmanager
def rise():
    """Prints by how many MB the block raises the peak over what is held when it begins."""
    with suppress(OSError):  # where it fails, what stays below an earlier peak goes unseen
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _peak()
    yield
    print(_peak() - before)


def _peak():
    lines = STATUS.read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024
