"""What CALM learns where the truth is known to the pixel: its losses and its baseline.

    python benchmarks/calm_on_cues.py --out runs/calm --seed 0

trains, on the images and with the net of `attention_on_cues.py`: CALM with the losses "em" and
"ml", "em" with a lagged posterior, and the baseline "cam". The maps of new images are scored by the
net that they are of. Stopped, it goes on. It writes `results.csv` into the folder of the seed, with
95 % intervals over images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from attention_on_cues import BATCH, METRICS, SGD, drawn, new_net, stacked
from scipy.stats import binomtest
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import xcam
from xcam.data import PlantedCues
from xcam.results.bootstrap import Sample, estimate

# As the recipe, whose nets begin with weights of ImageNet: with the trunk of a trained net, and ten
# times the rate for its last stage and the head.
TUNING = {
    "optimizer": {"name": "SGD", "lr": 0.01, "momentum": 0.9, "nesterov": True}
    | {"weight_decay": 1e-4},
    "groups": {"^(?!.*(stem|stage[12]))": {"lr_factor": 10}},
}
NETS = {
    "em": {"loss": "em"},
    "cam": {"loss": "cam"},
    "em, lagged": {"loss": "em", "posterior": "lagged", "lag": 0.98},
    "ml": {"loss": "ml"},
}
SCORES = {name: METRICS[name] for name in ("energy", "pointing game", "PxAP")}
SCORES |= {
    "MaxBoxAccV2": xcam.get_metric("max_box_acc_v2")(),
    "remove and classify": xcam.get_metric("remove_and_classify")(),
}


def trained(out: Path, seed: int, images: int, epochs: int) -> dict[str, nn.Module]:
    """Train the net by itself (`"plain"`), and from its weights one with each loss."""
    data, held_out = (
        TensorDataset(*stacked(drawn(count, 10 * seed + part))[:2])
        for part, count in enumerate((images, images // 8))
    )
    steps = -(-images // BATCH) * (epochs + 2)
    schedule = {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": steps, "per": "step"}
    same = {"batch_size": BATCH, "validation": held_out, "seed": seed, "progress": True}
    plain = {"optimizer": SGD, "schedule": schedule, "epochs": epochs + 2}
    nets = {"plain": xcam.fit(new_net(seed), data, out=out / "plain", **plain, **same)}
    drop = {"name": "MultiStepLR", "milestones": [max(1, epochs - 1)], "gamma": 0.1}
    tuning = TUNING | {"schedule": drop, "epochs": epochs}
    for name, own in NETS.items():
        folder = out / name.replace(", ", "_")
        nets[name] = xcam.fit(nets["plain"], data, "calm", out=folder, **tuning, **same, **own)
    return nets


def scored(nets: Mapping[str, nn.Module], data: PlantedCues) -> pd.DataFrame:
    """Compute every metric of the nets' own maps, Grad-CAM's and the controls'."""
    found = []
    for name, net in nets.items():
        results = xcam.evaluate(
            net, DataLoader(data, batch_size=50), ["calm", "gradcam"], SCORES, target="label"
        )
        found.append(results.table().assign(net=name))
    return pd.concat(found)


def accuracies(nets: Mapping[str, nn.Module], data: PlantedCues) -> Iterator[dict[str, object]]:
    """Measure the nets' accuracies."""
    for name, net in nets.items():
        row = xcam.accuracy(net, TensorDataset(*stacked(data)[:2])).iloc[-1]
        interval = binomtest(row["correct"], row["n"]).proportion_ci(method="wilson")
        values = {"value": row["accuracy"], "low": interval.low, "high": interval.high}
        yield {"net": name, "metric": "accuracy", "n": row["n"], **values}


def counterfactuals(nets: Mapping[str, nn.Module], two: PlantedCues) -> Iterator[dict[str, object]]:
    """Measure how much of the mass of "why A rather than B" is positive on A's disc.

    It is the difference of the maps of the two classes that an image shows; its positive part, as a
    share of what lies on both discs.
    """
    images, labels, own = stacked(two)
    other_disc = own.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    other_label = labels.unflatten(0, (-1, 2)).flip(1).flatten()
    pictures = torch.arange(len(labels)) // 2
    for name, net in nets.items():
        for method in ("calm", "gradcam"):
            maps, against = (
                xcam.explain(net, images, y, method).maps for y in (labels, other_label)
            )
            mass = (maps - against).clamp(min=0)
            here, both = (mass * own).sum((1, 2)), (mass * (own | other_disc)).sum((1, 2))
            share = torch.where(both > 0, here / both, 0.5)
            (found,) = estimate([Sample.of(share.double(), pictures)], lambda mean: mean)
            low, high = found.interval()
            row = {"value": found.value, "low": low, "high": high, "n": found.images}
            yield {"net": name, "method": method, "metric": "counterfactual", **row}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder, one a seed in it")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the images")
    parser.add_argument("--images", type=int, default=1000, help="to train on")
    parser.add_argument("--epochs", type=int, default=3, help="two more for the net by itself")
    parser.add_argument("--test-images", type=int, default=100)
    options = parser.parse_args(arguments)
    seed, out = options.seed, options.out / str(options.seed)
    nets = trained(out, seed, options.images, options.epochs)
    one, two = (drawn(options.test_images // cues, 10 * seed + 1 + cues, cues) for cues in (1, 2))
    parts = [pd.DataFrame(accuracies(nets, one)), scored(nets, one)]
    table = pd.concat([*parts, pd.DataFrame(counterfactuals(nets, two))]).assign(seed=seed)
    table.to_csv(out / "results.csv", index=False, float_format="%.6g")
    wide = table.fillna({"method": ""}).pivot(
        index=["net", "method"], columns="metric", values="value"
    )
    print(wide.round(3).to_string())


if __name__ == "__main__":
    main()
