"""How many masks RISE needs: correlation with a map of many more, by estimator and sampling.

EfficientNet-Lite0 on two photographs of scikit-image, s = 7, p = 0.5. Each map of N masks is
compared (Pearson, over pixels) with a centred map of 8000 other masks; the plain and the centred
map have the same expectation up to scale and offset, which correlation does not see. Correlation
only: how faithful the maps are to the model is another question. The model runs in bfloat16, for
the reference as for the rest, so that rounding is part of the function that is explained.

`python benchmarks/rise_convergence.py` writes a CSV and a figure into `docs/figures`.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from xcam.core import Target
from xcam.engine import forward, untouched
from xcam.imaging import fit
from xcam.methods import RISE
from xcam.methods.perturbation.grid_masks import GridMasks
from xcam.models import load

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"
COUNTS = (125, 250, 500, 1000, 2000)
SEEDS = (1, 2, 3)
VARIANTS = tuple(itertools.product(("plain", "centered"), ("iid", "balanced")))
COLOURS = ("tab:blue", "tab:cyan", "tab:red", "tab:orange")
HEADER = ("image", "estimator", "sampling", "n_masks", "seed", "correlation")
Row = tuple[str, str, str, int, int, float]


def photographs() -> dict[str, Tensor]:
    """Return the photographs, (3, 224, 224) each, in [0, 1]."""
    from skimage import data

    arrays = {"cat": data.chelsea(), "coffee": data.coffee()}
    pixels = {name: torch.from_numpy(array).permute(2, 0, 1) for name, array in arrays.items()}
    return {name: fit(image.float() / 255, 224) for name, image in pixels.items()}


def correlation(maps: Tensor, others: Tensor) -> list[float]:
    """Compute Pearson's r of each of the (B, H, W) maps with the other of the same image."""
    centered = [m.flatten(1).double() - m.flatten(1).double().mean(1, True) for m in (maps, others)]
    unit = [m / m.norm(dim=1, keepdim=True) for m in centered]
    found: list[float] = (unit[0] * unit[1]).sum(1).tolist()
    return found


def measured(model: nn.Module, pictures: dict[str, Tensor]) -> Iterator[Row]:
    """Measure the correlation of every image, estimator, sampling, number of masks and seed."""
    images, target = torch.stack([*pictures.values()]), Target(torch.arange(len(pictures)))
    target.bind(forward.call(model, images))

    def scored(seed: int, sampling: str, count: int) -> tuple[Tensor, GridMasks]:
        method = RISE(n_masks=count, seed=seed, sampling=sampling)
        masks = method.draw(images)
        return method.scores(model, images, target, masks), masks

    centered = RISE(estimator="centered")
    reference = centered.estimate(*scored(1000, "iid", 8000))
    for seed in SEEDS:
        most, most_masks = scored(seed, "iid", max(COUNTS))
        for count in COUNTS:
            # Fewer independent masks of a seed are the first of more; balanced ones are not.
            samples = {
                "iid": (most[:, :count], most_masks),
                "balanced": scored(seed, "balanced", count),
            }
            for sampling, (scores, masks) in samples.items():
                for method in (RISE(), centered):
                    found = correlation(method.estimate(scores, masks), reference)
                    for name, value in zip(pictures, found, strict=True):
                        yield name, method.estimator, sampling, count, seed, round(value, 4)


def mean(rows: list[Row], name: str, estimator: str, sampling: str, count: int) -> float:
    """Return the mean correlation over seeds."""
    found = [row[5] for row in rows if row[:4] == (name, estimator, sampling, count)]
    return sum(found) / len(found)


def draw(rows: list[Row], names: list[str], path: Path) -> None:
    """Draw one panel an image, one line a variant, one dot a seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), sharey=True), names, strict=True):
        for (estimator, sampling), color in zip(VARIANTS, COLOURS, strict=True):
            line = [mean(rows, name, estimator, sampling, count) for count in COUNTS]
            style = "-" if sampling == "iid" else "--"
            axes.plot(COUNTS, line, style, color=color, label=f"{estimator}, {sampling}")
            dots = [(r[3], r[5]) for r in rows if r[:3] == (name, estimator, sampling)]
            axes.scatter(*zip(*dots, strict=True), s=8, color=color)
        axes.set(xscale="log", xticks=COUNTS, xticklabels=COUNTS, xlabel="masks", title=name)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("correlation with 8000 other masks")
    figure.axes[0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print the means, and write `rise_convergence.csv` and `.png`."""
    model, pictures = load("xcam:efficientnet_lite0", weights="DEFAULT"), photographs()
    with untouched(model), torch.no_grad(), forward.run_settings(precision="bf16", progress=True):
        rows = list(measured(model, pictures))
    FIGURES.mkdir(parents=True, exist_ok=True)
    with (FIGURES / "rise_convergence.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    draw(rows, [*pictures], FIGURES / "rise_convergence.png")
    for name, (estimator, sampling) in itertools.product(pictures, VARIANTS):
        means = [f"{mean(rows, name, estimator, sampling, count):.3f}" for count in COUNTS]
        print(f"{name:8}{estimator:9}{sampling:10}", *means)


if __name__ == "__main__":
    main()
