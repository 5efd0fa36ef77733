"""L-CAM's table on Fashion-MNIST over seeds, of what the docs' commands left.

    python benchmarks/lcam_on_fashion_mnist.py runs --root data

prints the table and the share of L-CAM's maps that are positive nowhere, and writes every value and
a figure of six images into `docs/figures`. `runs` holds `lcam_fm0`, `lcam_img0` and `table0`, and
the same of other seeds.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from attention_tables import FIGURES, markdown, shown
from torch import Tensor, nn

import xcam
from xcam.errors import XcamWarning
from xcam.results import figures
from xcam.results.tables import lcam

HEADS = ("lcam_fm", "lcam_img")
METHODS = {
    "Grad-CAM": {"method": "gradcam"},
    "Grad-CAM++": {"method": "gradcam_plusplus"},
    "Score-CAM": {"method": "scorecam"},
    "RISE": {"method": "rise", "n_masks": 1000},
}


def load_head(runs: Path, name: str, seed: int) -> nn.Module:
    """Load the trained net with a head."""
    return xcam.load(runs / f"{name}{seed}" / "last.safetensors")


def table(runs: Path, seeds: list[int]) -> str:
    """Return mean over seeds, lowest and highest, a line a method."""
    layout = lcam(num_classes=10)
    found = pd.concat([layout.fill(xcam.Results(runs / f"table{s}")).droplevel(0) for s in seeds])
    wanted = [column for column in found if column[1] != "top-5"]
    cells = {" ".join(column): found[column].dropna() for column in wanted}
    lines = found["100%", "AD"].groupby(level=0).mean().sort_values().index.drop("(images)")
    texts = [
        [method, *(shown(name, column.loc[[method]]) for name, column in cells.items())]
        for method in lines
    ]
    return markdown(pd.DataFrame(texts, columns=["method", *cells]))


def dark(runs: Path, seed: int, images: Tensor) -> Iterator[dict[str, object]]:
    """Yield how many maps of a head are positive nowhere: of all images, of the worst class."""
    for name in HEADS:
        net = load_head(runs, name, seed)
        explanation = xcam.explain(net, images)
        nowhere = pd.Series(~(explanation.maps.amax((1, 2)) > 0)).astype(float)
        by_class = nowhere.groupby(explanation.target.numpy()).mean()
        with torch.no_grad():
            share, black = net(torch.zeros_like(images[:1])).softmax(1)[0].max(0)
        yield {
            "seed": seed,
            "head": name,
            "positive nowhere": f"{nowhere.mean():.0%}",
            "worst class": f"{by_class.idxmax()} ({by_class.max():.0%})",
            "black is": f"{int(black)} ({float(share):.0%})",
        }


def draw(runs: Path, seed: int, images: Tensor, path: Path) -> None:
    """Draw six images by each method; both heads are on the same frozen classifier."""
    some = images[:: len(images) // 6][:6]
    fm, img = (load_head(runs, name, seed) for name in HEADS)
    found = {title: xcam.explain(fm, some, **how) for title, how in METHODS.items()}
    found |= {"L-CAM-Fm": xcam.explain(fm, some), "L-CAM-Img": xcam.explain(img, some)}
    figures.draw_comparison(fm, some, found, path, fm.categories)


def main() -> None:
    """Print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="where Fashion-MNIST is")
    options = parser.parse_args()
    runs, seeds = options.runs, [0, 1, 2]
    warnings.simplefilter("ignore", XcamWarning)  # of maps that are positive nowhere: counted here
    print(table(runs, seeds), "\n")
    results = {seed: xcam.Results(runs / f"table{seed}") for seed in seeds}
    values = pd.concat([found.table().assign(seed=seed) for seed, found in results.items()])
    columns = ["seed", "metric", "method", "value", "low", "high", "n"]
    values[columns].to_csv(FIGURES / "fashion_mnist_lcam.csv", index=False, float_format="%.4g")
    test = xcam.data.load("fashion_mnist", options.root).test
    chosen = sorted(results[0].to_pandas("AD(100%)")["index"].unique())  # the same of each seed
    images = torch.stack([test[int(index)][0] for index in chosen])
    lost = pd.DataFrame([row for seed in seeds for row in dark(runs, seed, images)])
    lost.to_csv(FIGURES / "fashion_mnist_lcam_dark.csv", index=False)
    print(markdown(lost))
    draw(runs, 0, images, FIGURES / "fashion_mnist_lcam.png")


if __name__ == "__main__":
    main()
