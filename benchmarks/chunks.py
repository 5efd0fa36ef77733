"""How many images a CPU runs at a time at its best, beside what xcam chooses.

`python benchmarks/chunks.py` prints its table of `RESULTS.md`: the time an image of bare forwards
in channels_last by the size of the chunk, over that of the best size; minima of rounds.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from explain import pictures, rows, title
from timing import interleave, machine
from torch import Tensor, nn

import xcam
from xcam.engine import untouched
from xcam.engine.chunks import choose_batch_size
from xcam.engine.footprint import measure_footprint
from xcam.engine.forward import run_settings

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# Name, title, side of the images, and the largest chunk that is tried.
NETS = (
    ("resnet50", "ResNet-50", 224, 16),
    ("efficientnet_b0", "EfficientNet-B0", 224, 16),
    ("convnext_tiny", "ConvNeXt-T", 224, 16),
    ("resnet18", "ResNet-18", 224, 32),
    ("vit_b_16", "ViT-B/16", 224, 16),
    ("resnet18", "ResNet-18", 64, 256),
    ("xcam:cifar_resnet", "ResNet-20", 32, 256),
    ("xcam:simple_cnn", "SimpleCNN", 32, 256),
)


def make_net(name: str) -> nn.Module:
    """Make a seeded net in eval mode, of torchvision or xcam."""
    torch.manual_seed(0)
    if name == "xcam:cifar_resnet":
        return xcam.models.load(name, depth=20).eval()
    if name.startswith("xcam:"):
        return xcam.models.load(name).eval()
    return torchvision.models.get_model(name, weights=None).eval()


def run(model: nn.Module, images: Tensor, size: int, count: int) -> None:
    """Run `count` images, `size` at a time."""
    chunk = images[:1].expand(size, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for _ in range(count // size):
            model(chunk)


def measure(name: str, label: str, side: int, most: int, rounds: int) -> list[str]:
    """Return a row of the table."""
    model = make_net(name)
    images = pictures(1, "cpu")[..., :side, :side].contiguous()
    sizes = [size for size in SIZES if size <= most]
    candidates: dict[str, Callable[[], object]] = {
        str(size): partial(run, model, images, size, most) for size in sizes
    }
    times = {size: min(found) for size, found in interleave(candidates, rounds).items()}
    best = min(times.values())
    footprint = measure_footprint(model, images)
    with untouched(model), run_settings() as settings:
        chosen = choose_batch_size(1000, images, settings)
    cells = [f"{times[str(size)] / best:.2f}" if size in sizes else "" for size in SIZES]
    return [f"{label}, {side} px", f"{(footprint or 0) / 1e6:.2f}", str(chosen), *cells]


def main() -> None:
    """Parse the command line and print the table for each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    options = parser.parse_args()
    print(f"{datetime.date.today()}, {machine()}")
    for threads in options.threads:
        torch.set_num_threads(threads)
        title(f"Time an image by chunk size, over the best, {threads} threads")
        rows(
            ["", "largest layer, MB an image", "xcam takes", *map(str, SIZES)],
            (measure(*net, options.rounds) for net in NETS),
        )


if __name__ == "__main__":
    main()
