"""What CALM learns where the truth is known to the pixel: its losses and its baseline.

    python benchmarks/calm_on_cues.py --out runs/calm --seed 0

trains, on the images and with the net of `attention_on_cues.py`: the net by itself, `plain`; from
its weights CALM with the losses "em" and "ml", "em" with a lagged posterior, and the baseline
"cam". The maps of new images are scored by the net that they are of and by the plain one. Stopped,
it goes on.

    python benchmarks/calm_tables.py runs/calm

prints the tables over all seeds in the folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from attention_on_cues import BATCH, METRICS, SGD, drawn, make_map_source, new_net, stacked
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import xcam
from xcam import imaging
from xcam.core import figures
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
REMOVAL = "remove and classify"
SCORES = {name: METRICS[name] for name in ("energy", "pointing game", "PxAP")}
SCORES |= {
    "MaxBoxAccV2": xcam.get_metric("max_box_acc_v2")(),
    REMOVAL: xcam.get_metric("remove_and_classify")(),
}
ERASED = 0.1  # of the pixels, of which a disc has 7 %


def trained(out: Path, seed: int, images: int, epochs: int) -> dict[str, nn.Module]:
    """Train the net by itself (`"plain"`), and from its weights one with each loss."""
    data, held_out = (
        TensorDataset(*stacked(drawn(count, 10 * seed + part))[:2])
        for part, count in enumerate((images, images // 8))
    )
    steps = -(-images // BATCH) * (epochs + 2)
    schedule = {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": steps, "per": "step"}
    same = {"batch_size": BATCH, "validation": held_out, "seed": seed, "progress": True}
    same |= {"precision": "bf16"}  # with channels last, a third of the time; the head is exact
    plain = {"optimizer": SGD, "schedule": schedule, "epochs": epochs + 2}
    net = new_net(seed).to(memory_format=torch.channels_last)
    nets = {"plain": xcam.fit(net, data, out=out / "plain", **plain, **same)}
    drop = {"name": "MultiStepLR", "milestones": [max(1, epochs - 1)], "gamma": 0.1}
    tuning = TUNING | {"schedule": drop, "epochs": epochs}
    for name, own in NETS.items():
        folder = out / name.replace(", ", "_")
        nets[name] = xcam.fit(nets["plain"], data, "calm", out=folder, **tuning, **same, **own)
    return nets


def accuracies(nets: Mapping[str, nn.Module], data: PlantedCues) -> Iterator[dict[str, object]]:
    """Measure the nets' accuracies."""
    for name, net in nets.items():
        row = xcam.accuracy(net, TensorDataset(*stacked(data)[:2])).iloc[-1]
        interval = binomtest(row["correct"], row["n"]).proportion_ci(method="wilson")
        values = {"value": row["accuracy"], "low": interval.low, "high": interval.high}
        yield {"judge": name, "metric": "accuracy", "n": row["n"], **values}


def scored(nets: Mapping[str, nn.Module], data: PlantedCues) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compute every result of the nets' own maps and Grad-CAM's, and the curves of removal.

    The plain net judges the maps of all nets, its own Grad-CAM and the controls.
    """
    tables, curves = [], []
    loader = DataLoader(data, batch_size=50)
    maps = {name: make_map_source(nets[name]) for name in NETS}
    for judge, net in nets.items():
        is_plain = judge == "plain"
        results = xcam.evaluate(
            net,
            loader,
            ["gradcam"] if is_plain else ["calm", "gradcam"],
            SCORES,
            target="label",
            maps=maps if is_plain else None,
            controls=is_plain,
        )
        tables.append(results.table().assign(judge=judge))
        curves.append(results.curves(REMOVAL).assign(judge=judge))
    return pd.concat(tables), pd.concat(curves)


def counterfactuals(nets: Mapping[str, nn.Module], two: PlantedCues) -> Iterator[dict[str, object]]:
    """Measure maps of "why A rather than B" on images that show both.

    - `counterfactual`: the share of the positive part of the map on A's disc, of that on both.
    - `turned`: how often a net says B rather than A once the highest tenth of the pixels is erased;
      as each disc is A once and B once, it is a half before.
    """
    images, labels, own = stacked(two)
    pairs = (labels, labels.unflatten(0, (-1, 2)).flip(1).flatten())
    both = own | own.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    pictures = torch.arange(len(labels)) // 2
    for name, net in nets.items():
        for method in ("gradcam",) if name == "plain" else ("calm", "gradcam"):
            maps = xcam.explain(net, images, pairs[0], method, contrast=pairs[1]).maps
            mass = maps.clamp(min=0)
            here, on_both = (mass * own).sum((1, 2)), (mass * both).sum((1, 2))
            found = {"counterfactual": torch.where(on_both > 0, here / on_both, 0.5)}
            for judge in dict.fromkeys((name, "plain")):
                found[f"turned, {judge}"] = turned(nets[judge], images, maps, *pairs)
            for metric, values in found.items():
                (result,) = estimate([Sample.of(values.double(), pictures)], lambda mean: mean)
                low, high = result.interval()
                metric, _, judge = metric.partition(", ")
                row = {"value": result.value, "low": low, "high": high, "n": result.images}
                label = {"judge": judge or name, "net": name, "method": method, "metric": metric}
                yield label | row


@torch.no_grad()
def turned(
    judge: nn.Module, images: Tensor, maps: Tensor, labels: Tensor, others: Tensor
) -> Tensor:
    """Return for each image whether the erased one is rather of the other class, (B,)."""
    count = int(ERASED * maps[0].numel())
    places = maps.flatten(1).topk(count).indices
    erased = torch.zeros_like(maps.flatten(1), dtype=torch.bool).scatter(1, places, True)
    hidden = erased.view_as(maps)[:, None]
    logits = judge(torch.where(hidden, imaging.make_fill(images, "mean"), images))
    rows = torch.arange(len(images))
    return (logits[rows, others] > logits[rows, labels]).float()


@torch.no_grad()
def differences(nets: Mapping[str, nn.Module], data: PlantedCues) -> Iterator[dict[str, object]]:
    """Measure how far each net is from that of the loss "em": of the odds, and of the maps."""
    images, labels, _ = stacked(data)
    odds = {name: nets[name](images).softmax(1) for name in NETS}
    maps = {name: xcam.explain(nets[name], images, labels, map="jointll").maps for name in NETS}
    for name in (name for name in NETS if name not in ("em", "cam")):
        values = {
            "difference of odds": (odds[name] - odds["em"]).abs().amax(1).mean(),
            "correlation of maps": correlate(maps[name], maps["em"]).mean(),
        }
        for metric, value in values.items():
            yield {"judge": name, "metric": metric, "value": float(value), "n": len(images)}


def correlate(some: Tensor, others: Tensor) -> Tensor:
    """Return the correlation of the values of each two maps, (B,)."""
    centered = [maps.flatten(1) - maps.mean((1, 2))[:, None] for maps in (some, others)]
    return torch.cosine_similarity(*centered)


def draw(nets: Mapping[str, nn.Module], two: PlantedCues, path: Path) -> None:
    """Draw, of images with two discs, the map of either class and of one rather than the other."""
    some, labels = (part[:8:2] for part in stacked(two)[:2])
    others = stacked(two)[1][1:8:2]
    columns = {}
    for name, net in nets.items():
        method = "gradcam" if name == "plain" else "calm"
        title = "Grad-CAM, plain" if name == "plain" else name
        columns[title] = xcam.explain(net, some, labels, method).overlay(some)
        contrast = xcam.explain(net, some, labels, method, contrast=others)
        columns[f"{title}: A − B"] = contrast.overlay(some)
    rows = [f"A {a}, B {b}" for a, b in zip(labels.tolist(), others.tolist(), strict=True)]
    figures.draw_grid(some, columns, rows, path)


def measured(out: Path, seed: int, images: int, epochs: int, test_images: int) -> pd.DataFrame:
    """Compute all results of one seed, and write its tables and figure in its folder."""
    nets = trained(out, seed, images, epochs)
    one, two = (drawn(test_images // cues, 10 * seed + 1 + cues, cues) for cues in (1, 2))
    scores, curves = scored(nets, one)
    parts = [pd.DataFrame(accuracies(nets, one)), scores]
    parts += [pd.DataFrame(part) for part in (counterfactuals(nets, two), differences(nets, one))]
    table = pd.concat(parts).assign(seed=seed)
    table.to_csv(out / "results.csv", index=False, float_format="%.6g")
    curves.assign(seed=seed).to_csv(out / "curves.csv", index=False, float_format="%.6g")
    draw(nets, two, out / "maps.png")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder, one a seed in it")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the images")
    parser.add_argument("--images", type=int, default=1000, help="to train on")
    parser.add_argument("--epochs", type=int, default=3, help="two more for the net by itself")
    parser.add_argument("--test-images", type=int, default=100)
    options = parser.parse_args(arguments)
    out = options.out / str(options.seed)
    print(measured(out, options.seed, options.images, options.epochs, options.test_images))


if __name__ == "__main__":
    main()
