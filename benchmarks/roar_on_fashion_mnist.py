"""ROAR and KAR of eight methods on Fashion-MNIST, and what White Box's protocol makes of them.

    OMP_NUM_THREADS=1 python benchmarks/roar_on_fashion_mnist.py data runs/roar &
    OMP_NUM_THREADS=1 python benchmarks/roar_on_fashion_mnist.py data runs/roar

trains White Box's SimpleCNN and, on it, L-CAM-Img, LFI-CAM and CALM, then retrains SimpleCNN
without, and with only, what each of eight methods and two controls marks. Each of these nets is
also tested on test images that are not masked, as White Box has it: the same trainings as with
`mask_eval=False`. Kendall's tau says how far that changes the order of the methods, beside how far
other seeds do. Its own preset is trained after it. Started again, it goes on; several that run at
a time share the trainings. `--report` alone prints the tables, and writes the rows and a figure
into `docs/figures`, those of the preset once it has trainings. `--dry-run` prints how many
trainings there are, and about how long they take.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import nn
from torch.utils.data import Dataset, Subset

import xcam
from xcam.models import Normalized
from xcam.models.whitebox.simple_cnn import SimpleCNN
from xcam.results.curve_figures import CurveLabels, draw_curves

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
PLAIN = ("gradcam", "integrated_gradients", "smoothgrad", "smoothgrad_squared", "rise")
HEADS = ("lcam_img", "lficam", "calm")
FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9)
BATCH = 128
RESAMPLES = 2000


def make_net() -> nn.Module:
    """Return SimpleCNN for Fashion-MNIST, with new weights."""
    net = Normalized(SimpleCNN(10, 1, 28), [0.286], [0.353])
    return net.to(memory_format=torch.channels_last)  # on a CPU a step takes two thirds of the time


def settings(arguments: argparse.Namespace, epochs: int | None = None) -> dict[str, Any]:
    """Return the settings of a training: those of every net here but the heads."""
    epochs = epochs or arguments.epochs
    batches = -(-arguments.images // BATCH)
    schedule = {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": epochs * batches}
    return {
        "epochs": epochs,
        "batch_size": BATCH,
        "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
        "schedule": {**schedule, "per": "step"},
        "precision": arguments.precision,
    }


def explained_nets(arguments: argparse.Namespace, train: Dataset[Any]) -> Iterator[Any]:
    """Yield the name of each net, the net, and the methods that explain it; all are kept."""
    folder = arguments.out / "nets"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = make_net()
    many = settings(arguments, 2 * arguments.epochs)
    steady = {**many, "schedule": None, "optimizer": {**many["optimizer"], "lr": 0.03}}
    net = xcam.fit(fresh, train, out=folder / "plain", **many)
    samples = {"n_samples": arguments.samples}
    given = {name: samples for name in PLAIN if name.startswith("smoothgrad")}
    given["rise"] = {"n_masks": arguments.masks}
    methods = {name: xcam.get_method(name)(**given.get(name, {})) for name in PLAIN}
    yield "SimpleCNN", net, methods
    for head in HEADS:
        yield head, xcam.fit(net, train, head, out=folder / head, **steady), {head: head}


def protocols(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the settings of the two protocols by their folder."""
    common = {"fractions": FRACTIONS, "fit": settings(arguments), "parallel": arguments.parallel}
    roar = {"mode": ("remove", "keep"), "repeats": arguments.repeats, "blurred": arguments.blurred}
    return {"roar": common | roar, "whitebox": common | {"preset": "whitebox"}}


def run(arguments: argparse.Namespace) -> None:
    """Train what is missing."""
    splits = xcam.data.load("fashion_mnist", arguments.root)
    train = Subset(splits.train, range(min(arguments.images, len(splits.train))))
    test = Subset(splits.test, range(min(arguments.test_images, len(splits.test))))
    nets = list(explained_nets(arguments, train))
    for protocol, given in protocols(arguments).items():
        for name, net, methods in nets:
            print(f"{protocol}, {name}", flush=True)
            xcam.roar(
                make_net,
                train,
                test,
                {name: net},
                methods,
                out=arguments.out / protocol,
                dry_run=arguments.dry_run,
                progress=True,
                **given,
            )


def score(results: xcam.RetrainingResults, accuracy: str = "accuracy") -> pd.DataFrame:
    """Return the mean accuracy over fractions of each method (line) and repeat (column).

    Of methods and the controls random and sobel, without those of blurred maps.
    """
    rows = results.to_pandas()
    rows = rows[(rows["mode"] == "remove") & rows["fraction"].isin(FRACTIONS)]
    rows = rows[~rows["method"].str.endswith(", blurred")]
    if rows[accuracy].isna().any():
        print(f"{rows[accuracy].isna().sum()} trainings have no {accuracy}, and are left out")
    return rows.pivot_table(index="method", columns="repeat", values=accuracy)


def kendall(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Return Kendall's tau of the mean scores (methods, repeats) of methods."""
    return float(stats.kendalltau(one.mean(1), other.mean(1)).statistic)


def kendall_between_repeats(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Return the mean of Kendall's tau over all pairs of one's and other's different repeats."""
    pairs = itertools.permutations(range(one.shape[1]), 2)
    taus = [stats.kendalltau(one[:, i], other[:, j]).statistic for i, j in pairs]
    return float(np.mean(taus)) if taus else float("nan")


def estimate(
    statistic: Callable[..., float], *scores: pd.DataFrame, repeats: bool = True, seed: int = 0
) -> str:
    """Return a statistic of scores, with the 95 % interval of a bootstrap.

    Args:
        statistic: Of one or several arrays (methods, repeats).
        *scores: Of the same methods; where the number of repeats is the same, these are paired.
        repeats: Whether to resample the repeats, as methods are.
        seed: Of the bootstrap.
    """
    names = sorted(set.intersection(*(set(one.index) for one in scores)))
    arrays = [one.loc[names].to_numpy() for one in scores]
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES):
        methods = generator.integers(len(names), size=len(names))
        columns = {
            count: generator.integers(count, size=count) if repeats else np.arange(count)
            for count in sorted({array.shape[1] for array in arrays})
        }
        drawn = [array[methods][:, columns[array.shape[1]]] for array in arrays]
        found.append(statistic(*drawn))
    defined = [value for value in found if np.isfinite(value)]  # not where all methods are equal
    low, high = np.percentile(defined or [np.nan], [2.5, 97.5])
    return f"{statistic(*arrays):.2f} [{low:.2f}, {high:.2f}]"


def report_orders(roar: xcam.RetrainingResults, whitebox: xcam.RetrainingResults | None) -> None:
    """Print how far an unmasked test set, White Box's preset and other seeds change the order."""
    masked, unmasked = score(roar), score(roar, "accuracy_unmasked")
    orders = pd.DataFrame({"masked": masked.mean(axis=1), "unmasked": unmasked.mean(axis=1)})
    preset = None if whitebox is None else score(whitebox)
    if preset is not None:
        orders["whitebox"] = preset[0]
    print(f"\nmean accuracy over fractions\n{orders.sort_values('masked').round(3)}")
    print("\nKendall's tau of the order of methods; intervals resample methods and repeats:")
    print(f"masked and unmasked test images: {estimate(kendall, masked, unmasked)}")
    if preset is not None:
        print(f"masked, and White Box's preset: {estimate(kendall, masked, preset)}")
        print(f"unmasked, and White Box's preset: {estimate(kendall, unmasked, preset)}")
    print("between single repeats, a mean over pairs; intervals resample methods:")
    within = estimate(kendall_between_repeats, masked, masked, repeats=False)
    across = estimate(kendall_between_repeats, masked, unmasked, repeats=False)

    def subtract(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
        return kendall_between_repeats(one, one) - kendall_between_repeats(one, other)

    print(f"masked and masked: {within}")
    print(f"masked and unmasked: {across}")
    print(f"the first minus the second: {estimate(subtract, masked, unmasked, repeats=False)}")


def draw(results: xcam.RetrainingResults, path: Path) -> None:
    """Draw the methods of all nets beside each other, a panel a mode, without the endpoints."""
    table = results.table()
    inner = table[table["fraction"].isin(FRACTIONS)]
    points = inner.drop_duplicates(["mode", "method", "fraction"]).rename(
        columns={"fraction": "x", "value": "y"}
    )
    controls = points.loc[points["control"], "method"].unique()
    labels = CurveLabels("", "fraction of pixels", "accuracy", controls=controls)
    draw_curves(points.assign(model=points["mode"]), labels, path)


def report(arguments: argparse.Namespace) -> None:
    """Print the tables, and write rows and a figure."""
    arguments.figures.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in protocols(arguments):
        if not any((arguments.out / name / "trainings").glob("*/*/*/*.json")):
            print(f"{name} has no trainings yet")
            continue
        results[name] = xcam.RetrainingResults(arguments.out / name)
        results[name].to_csv(arguments.figures / f"{name}_fashion_mnist.csv")
        print(f"\n{name}\n{results[name]}")
    draw(results["roar"], arguments.figures / "roar_fashion_mnist.png")
    print(f"\nDiffROAR\n{results['roar'].diff_roar().to_string(index=False)}")
    report_orders(results["roar"], results.get("whitebox"))


def main() -> None:
    """Run, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="folder of the data")
    parser.add_argument("out", type=Path, help="folder of the run")
    option = partial(parser.add_argument, type=int)
    option("--images", default=8000)
    option("--test-images", default=2000)
    option("--epochs", default=3, help="of a retraining; the explained nets take twice as many")
    option("--repeats", default=3)
    option("--masks", default=250, help="of RISE")
    option("--samples", default=15, help="of SmoothGrad")
    option("--parallel", default=1)
    parser.add_argument("--precision", default="bf16", help="of the trainings")
    parser.add_argument("--blurred", action="store_true")
    parser.add_argument("--figures", type=Path, default=FIGURES)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    if not arguments.report:
        run(arguments)
    if not arguments.dry_run:
        report(arguments)


if __name__ == "__main__":
    main()
