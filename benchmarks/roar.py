"""Trainings a minute of `xcam.roar`, one by one and as a stack, and the bytes of its map store.

    OMP_NUM_THREADS=1 python benchmarks/roar.py
    python benchmarks/roar.py --device cuda --images 8192 --parallel 4 16 64

The net is White Box's SimpleCNN with batch norm, on random images of 1x28x28: what is measured
does not depend on what they show. Trainings a minute count the training and its test, not the
maps, which are made once. On a CPU, seconds are also those of the processor, which other work on
the machine changes less.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

import xcam
from xcam.models import Normalized
from xcam.models.whitebox.simple_cnn import SimpleCNN


def make_net() -> nn.Module:
    """Return SimpleCNN for MNIST's images."""
    return Normalized(SimpleCNN(10, 1, 28), [0.286], [0.353])


def make_data(count: int, seed: int) -> TensorDataset:
    """Return random images with random labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, 28, 28, generator=generator)
    return TensorDataset(images, torch.randint(10, (count,), generator=generator))


def measure(parallel: int, arguments: argparse.Namespace) -> tuple[float, float]:
    """Return the trainings a minute, and a minute of the processor, of so many at once."""
    count = max(parallel, arguments.trainings)
    with tempfile.TemporaryDirectory() as out:
        settings = {
            "fit": {"epochs": 1, "batch_size": 128},
            "controls": False,
            "fractions": [round((n + 1) / (count + 1), 6) for n in range(count)],
            "repeats": 1,
            "out": out,
            "device": arguments.device,
        }
        data = make_data(arguments.images, 0), make_data(256, 1)
        explained = make_net()
        # The maps and the two ends of the curves come first, and are not counted.
        xcam.roar(make_net, *data, explained, "gradcam", **settings | {"fractions": [0.001]})
        begin = time.perf_counter(), time.process_time()
        xcam.roar(make_net, *data, explained, "gradcam", parallel=parallel, **settings)
        spent = time.perf_counter() - begin[0], time.process_time() - begin[1]
    return 60 * count / spent[0], 60 * count / spent[1]


def count_bytes(method: str, images: int = 512) -> float:
    """Return the bytes an image that the store of a method's maps takes."""
    with tempfile.TemporaryDirectory() as out:
        xcam.roar(
            make_net,
            make_data(images, 0),
            make_data(16, 1),
            make_net(),
            method,
            fit={"epochs": 1, "batch_size": 512},
            fractions=[0.5],
            repeats=1,
            controls=False,
            mask_eval=False,
            out=out,
        )
        files = Path(out, "maps").rglob("batch-*.safetensors")
        return sum(path.stat().st_size for path in files) / images


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=1024, help="of a training, one epoch")
    parser.add_argument("--trainings", type=int, default=4, help="at least, of each line")
    parser.add_argument("--parallel", type=int, nargs="+", default=[2, 4, 8])
    arguments = parser.parse_args()
    where = (
        torch.cuda.get_device_name() if arguments.device.startswith("cuda") else arguments.device
    )
    print(f"SimpleCNN, {arguments.images} images, one epoch, {where}, torch {torch.__version__}\n")
    print("| at once | trainings a minute | × | a processor's minute | × |\n|---|---|---|---|---|")
    measure(1, arguments)  # warms up
    first = measure(1, arguments)
    for parallel in (1, *arguments.parallel):
        found = first if parallel == 1 else measure(parallel, arguments)
        gain = [new / old for new, old in zip(found, first, strict=True)]
        print(
            f"| {parallel} | {found[0]:.1f} | {gain[0]:.2f} | {found[1]:.1f} | {gain[1]:.2f} |",
            flush=True,
        )
    print("\n| maps of | bytes an image |\n|---|---|")
    for method in ("gradcam", "saliency"):
        print(f"| `{method}` | {count_bytes(method):.0f} |")


if __name__ == "__main__":
    main()
