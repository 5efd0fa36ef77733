"""What `xcam.evaluate` takes beside the passes that it makes, on many small images.

`python benchmarks/evaluate_overhead.py` scores two CAMs by insertion and average drop on 2,000
images of 32 pixels, and runs as many bare forward passes in between. Loading the images and writing
the rows count.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
import time

import torch
from timing import machine
from torch.utils.data import TensorDataset

import xcam
from xcam.models import Normalized

_CHUNK = 64


def time_bare(model: Normalized, images: torch.Tensor, passes: int) -> float:
    """Time so many forward passes alone, in chunks, in channels_last."""
    start = time.perf_counter()
    with torch.inference_mode():
        for first in range(0, passes, _CHUNK):
            count = min(_CHUNK, passes - first)
            model(images[:count].contiguous(memory_format=torch.channels_last))
    return time.perf_counter() - start


def main() -> None:
    """Parse the command line and print the ratio of each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = xcam.models.load("xcam:simple_cnn", num_classes=10).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(options.images, 3, 32, 32, generator=generator)
    labels = torch.randint(10, (options.images,), generator=generator)
    print(f"{datetime.date.today()}, {machine()}")
    ratios = []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            results = xcam.evaluate(
                model, TensorDataset(images, labels), ["gradcam", "layercam"],
                ["insertion", "average_drop"], controls=False, out=out,
            )  # fmt: skip
            taken = time.perf_counter() - start
            frame = results.to_pandas()
        made = int(frame["passes_spent"].sum() + frame["explain_passes_spent"].sum())
        bare = time_bare(model, images, made)
        ratios.append(taken / bare)
        print(f"round {number}: {taken:.1f} s, {made} passes bare {bare:.1f} s: {ratios[-1]:.2f}")
    print(f"best of {options.rounds}: {min(ratios):.2f}")


if __name__ == "__main__":
    main()
