"""Trains a small ResNet on planted cues, and draws the curve of a training.

    python examples/train_on_cues.py --out runs/cues

trains on generated images in which a disc's colour is the class, and draws `runs/cues/curve.png`.
Stopped, it goes on. `--curve RUN` only draws what another training's folder holds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

import xcam
from xcam.data import planted_cues

SIZE, CLASSES = 48, 8
SETTINGS = {
    "batch_size": 64,
    "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
    "schedule": {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 0, "per": "step"},
}


def train(out: Path, images: int, epochs: int, seed: int) -> None:
    """Train, with images to choose the best epoch by and others to measure it on."""
    data, held_out, test = (
        planted_cues(count, SIZE, CLASSES, "color", seed=3 * seed + part)
        for part, count in enumerate((images, images // 4, images // 4))
    )
    torch.manual_seed(seed)
    net = xcam.models.load("xcam:cifar_resnet", depth=20, num_classes=CLASSES)
    steps = -(-images // SETTINGS["batch_size"]) * epochs
    schedule = {**SETTINGS["schedule"], "total_steps": steps}
    settings = {**SETTINGS, "schedule": schedule, "seed": seed, "progress": True}
    xcam.fit(net, data, epochs=epochs, out=out, validation=held_out, test=test, **settings)
    print(pd.read_csv(out / "test.csv").to_string(index=False))


def draw(run: Path) -> None:
    """Draw loss and accuracy over the epochs of a training, as `curve.png` in its folder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    log = pd.read_csv(run / "log.csv")
    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axis, what in zip(axes, ("loss", "accuracy"), strict=True):
        for part in ("train", "validation"):
            axis.plot(log["epoch"], log[f"{part}_{what}"], marker=".", label=part)
        axis.set(xlabel="epoch", ylabel=what)
        axis.legend()
    axes[0].set_yscale("log")
    figure.savefig(run / "curve.png", dpi=120)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/cues"), help="its folder")
    parser.add_argument("--images", type=int, default=1600, help="to train on")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--curve", type=Path, help="draw this training instead")
    options = parser.parse_args(arguments)
    if options.curve is None:
        train(options.out, options.images, options.epochs, options.seed)
    draw(options.curve or options.out)


if __name__ == "__main__":
    main()
