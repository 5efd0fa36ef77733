"""Trains the small nets that come with xcam: `xcam:fashion_mnist` and one for each head.

    python examples/train_fashion_mnist.py DATA

reads Fashion-MNIST from DATA (see `docs/howto/data.md`), trains a ResNet of eight layers on 12,000
images, then each head on it, and writes `xcam/pretrained/*.safetensors`, in some ten
minutes on one core. It prints the accuracy of each net on the 10,000 test images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset

import xcam
from xcam.pretrained import FOLDER, HEADS

BATCH = 128
LCAM = {
    "optimizer": {"name": "SGD", "lr": 0.01, "momentum": 0.9, "nesterov": True},
    "groups": {"bias": {"lr_factor": 2}},
}
SGD = {"optimizer": {"name": "SGD", "lr": 0.03, "momentum": 0.9, "weight_decay": 5e-4}}
SETTINGS: dict[str, dict[str, Any]] = {
    "abn": SGD,
    "calm": SGD,
    "castream": {"optimizer": {"name": "AdamW", "lr": 1e-3}},
    "lcam_fm": LCAM,
    "lcam_img": LCAM,
    "lficam": SGD,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train all nets, and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder of Fashion-MNIST")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for the nets")
    parser.add_argument("--images", type=int, default=12_000, help="to train on")
    parser.add_argument("--epochs", type=int, default=5, help="of each training")
    options = parser.parse_args(arguments)

    splits = xcam.data.load("fashion_mnist", options.root)
    train = Subset(splits.train, range(min(options.images, len(splits.train))))
    steps = -(-len(train) // BATCH) * options.epochs
    torch.manual_seed(0)
    net = xcam.models.load(
        "xcam:cifar_resnet",
        depth=8,
        in_channels=1,
        input_size=28,
        num_classes=10,
        mean=[0.286],
        std=[0.353],
        categories=splits.classes,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    for head in (None, *HEADS):
        settings = SETTINGS[head] if head else {"optimizer": {**SGD["optimizer"], "lr": 0.1}}
        trained = xcam.fit(
            net,
            train,
            head,
            epochs=options.epochs,
            batch_size=BATCH,
            schedule={
                "name": "OneCycleLR",
                "max_lr": settings["optimizer"]["lr"],
                "total_steps": steps,
                "per": "step",
            },
            precision="bf16",
            progress=True,
            **settings,
        )
        net = trained if head is None else net
        name = f"fashion_mnist_{head}" if head else "fashion_mnist"
        xcam.save(trained, options.out / f"{name}.safetensors")
        accuracy = xcam.accuracy(trained, splits.test)["accuracy"].iloc[-1]
        print(f"{name}: {accuracy:.1%} of the test images")


if __name__ == "__main__":
    main()
