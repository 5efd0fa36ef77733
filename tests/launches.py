"""What `accelerate launch` starts, on any machine: on its CPU, by no settings of its user's."""

import os
import socket
import subprocess
import sys

TWO = ["--multi_gpu", "--num_processes", "2"]
# What the documentation tells users, on CPUs too: accelerate's `--cpu` starts a single process.
LAUNCH = ["accelerate", "launch", *TWO, "-m", "xcam", "evaluate"]


def launched(home, *words):
    """The output of `accelerate launch` with these words, which has succeeded.

    Args:
        home: An empty folder for what accelerate reads from a user's.
        words: As text or what becomes text.
    """
    launch = ["-m", "accelerate.commands.accelerate_cli", "launch", "--main_process_port", "0"]
    environment = {"ACCELERATE_USE_CPU": "true", "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    if "lo" in (name for _, name in socket.if_nameindex()):
        environment["GLOO_SOCKET_IFNAME"] = "lo"  # a machine's name may not lead to itself
    done = subprocess.run(
        [sys.executable, *launch, *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
