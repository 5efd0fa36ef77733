"""White Box's attention networks on Fashion-MNIST, by the recipes of MNIST with fewer epochs.

    python benchmarks/whitebox_on_fashion_mnist.py runs --root data

trains each net into a folder of `runs`, goes on where it was stopped, and writes the accuracy by
class of the 10,000 test images into `docs/figures/fashion_mnist_whitebox.csv`. RAN and WARN see
10,000 of the training images. Names after `runs` choose some of the nets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from attention_tables import FIGURES, markdown
from torch.utils.data import Subset

import xcam

ON_FASHION_MNIST = {
    "data.name": "fashion_mnist", "data.validation": None,
    "model.mean": [0.286], "model.std": [0.353],
}  # fmt: skip
FEW = {"batch_size": 64, "epochs": 3}
NETS = {  # what is changed in the recipe `whitebox_mnist_…`, and how many images are trained on
    "simple_cnn_cam": ({"epochs": 2}, 60_000),
    "simple_cnn_cbam": ({"epochs": 1}, 60_000),
    "ran": (FEW, 10_000),
    "warn": (FEW, 10_000),
}


def train(name: str, root: Path, out: Path) -> None:
    """Train a net, and measure it on the test images, into `out`."""
    changes, count = NETS[name]
    recipe = xcam.recipes.read(f"whitebox_mnist_{name}", {**ON_FASHION_MNIST, **changes})
    splits = xcam.data.load(root=root, **recipe["data"])
    chosen = torch.randperm(60_000, generator=torch.Generator().manual_seed(223))[:count]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe["fit"]["seed"])
        net = xcam.models.load(**recipe["model"])
    images = Subset(splits.train, chosen.tolist())
    xcam.fit(net, images, test=splits.test, out=out, device="cpu", **recipe["fit"])


def read(name: str, out: Path) -> pd.DataFrame:
    """Read the accuracy by class of a trained net, with its size and the seconds of its epochs."""
    log, found = pd.read_csv(out / "log.csv"), pd.read_csv(out / "test.csv")
    net = xcam.load(out / "last.safetensors")
    parameters = sum(parameter.numel() for parameter in net.parameters())
    images = NETS[name][1]
    return found[["class", "n", "correct", "accuracy"]].assign(
        net=name, parameters=parameters, images=images, epochs=len(log),
        seconds=round(log["seconds"].sum()),
    )  # fmt: skip


def main() -> None:
    """Train, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("names", nargs="*", default=[*NETS], metavar="NET")
    parser.add_argument("--root", type=Path, required=True, help="where Fashion-MNIST is")
    options = parser.parse_args()
    for name in options.names:
        train(name, options.root, options.runs / name)
    found = pd.concat([read(name, options.runs / name) for name in options.names])
    table = FIGURES / "fashion_mnist_whitebox.csv"
    if table.exists():  # of the nets that are not chosen, the rows stay
        kept = pd.read_csv(table)
        found = pd.concat([kept[~kept["net"].isin(options.names)], found])
    found.to_csv(table, index=False, float_format="%.4g")
    wide = found.pivot_table("accuracy", "class", "net", sort=False).round(3)
    print(markdown(wide.reset_index()))


if __name__ == "__main__":
    main()
