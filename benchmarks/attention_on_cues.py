"""What attention learns where the truth is known to the pixel: LFI-CAM, ABN, L-CAM on planted cues.

    python benchmarks/attention_on_cues.py --out runs/attention --seed 0

trains, on images of 64 pixels a side in which the colour of one disc among grey ones is the class
of eight: a small ResNet; the same with LFI-CAM's attention, and with ABN's; L-CAM's heads on the
first, frozen. Maps of new images are scored beside Grad-CAM and the controls, by the net that they
are of and by the first one, which no attention has changed. Stopped, it goes on.

    python benchmarks/attention_tables.py runs/attention

prints the tables over all seeds in the folder.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import xcam
from xcam._fit.order import seed_all
from xcam.core import figures
from xcam.data import PlantedCues, planted_cues
from xcam.methods.trainable.taps import Place, tapped
from xcam.metrics import PointingGame
from xcam.results.bootstrap import Sample, estimate

SIZE, CLASSES, DEPTH, EPOCHS, BATCH = 64, 8, 14, 8, 64
# With the parameters that the recipes give them for CIFAR nets.
ATTENTION = {"lficam": {"fin_relu": "alternate"}, "abn": {}}
SGD = {"name": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
# L-CAM's published optimiser, and its rate for VGG-16.
HEAD = {"name": "SGD", "lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
HEAD_GROUPS = {"bias$": {"lr_factor": 2}}
HEAD_BATCH = 16  # more steps, for a head that starts from nothing on few images
VARIANTS: dict[str, dict[str, object]] = {
    "": {},
    ", own_label": {"mask_reg": "own_label"},
    ", zero_init": {"zero_init": True},
}
HEADS = {f"{name}{words}": name for name in ("lcam_fm", "lcam_img") for words in VARIANTS}
METRICS = {
    "energy": xcam.get_metric("energy_pointing_game")(),
    "pointing game": PointingGame(tolerance=1),  # on the disc itself
    "PxAP": xcam.get_metric("pxap")(),
    "AD": xcam.get_metric("average_drop")(),
    "IC": xcam.get_metric("increase_in_confidence")(),
    "AG": xcam.get_metric("average_gain")(),
    "accuracy under the map": xcam.get_metric("masked_accuracy")(),
}
POSITIVE = "abn, positive start"  # of the convolution that makes the map
Source = Callable[[Tensor, Sequence[str], Tensor], Tensor]


def drawn(count: int, seed: int, cues: int = 1) -> PlantedCues:
    """Draw new images; with two cues each is there twice in a row, once with each label."""
    return planted_cues(count, SIZE, CLASSES, "color", seed, cues=cues)


def stacked(data: PlantedCues) -> tuple[Tensor, Tensor, Tensor]:
    """Stack all images (N, 3, H, W), labels (N,) and masks of the deciding disc (N, H, W) bool."""
    images, labels, masks = zip(*data, strict=True)
    return torch.stack(images), torch.tensor(labels), torch.stack(masks)


def trained(out: Path, seed: int, images: int, epochs: int) -> dict[str, nn.Module]:
    """Train the net by itself (`"plain"`), with either attention, with each head of L-CAM."""
    data, held_out = (
        TensorDataset(*stacked(drawn(count, 10 * seed + part))[:2])  # drawn once, not every epoch
        for part, count in enumerate((images, images // 8))
    )
    steps = -(-images // BATCH) * epochs
    joint = {
        "optimizer": SGD,
        "schedule": {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": steps, "per": "step"},
        "batch_size": BATCH,
    }
    alone = {
        "optimizer": HEAD,
        "schedule": {"name": "CosineAnnealingLR", "T_max": epochs // 2},
        "batch_size": HEAD_BATCH,
        "groups": HEAD_GROUPS,
    }
    same = {"validation": held_out, "seed": seed, "progress": True}
    nets: dict[str, nn.Module] = {}
    for name in ("plain", *ATTENTION):
        method = None if name == "plain" else name
        net, folder, own = new_net(seed), out / name, ATTENTION.get(name, {})
        nets[name] = xcam.fit(net, data, method, epochs=epochs, out=folder, **joint, **same, **own)
    with torch.random.fork_rng(devices=[]):
        seed_all("attach", seed)  # as fit does: the head that "abn" began with, but for signs
        positive = xcam.get_method("abn")().attach(new_net(seed))
    with torch.no_grad():
        positive.head.attention[0].weight.abs_()
    nets[POSITIVE] = xcam.fit(
        positive, data, epochs=epochs, out=out / "abn_positive", **joint, **same
    )
    for label, name in HEADS.items():
        folder, only = out / label.replace(", ", "_"), VARIANTS[label.removeprefix(name)]
        settings = {"epochs": epochs // 2, "out": folder, **alone, **same, **only}
        nets[label] = xcam.fit(nets["plain"], data, name, **settings)
    return nets


def new_net(seed: int) -> nn.Module:
    """Make the classifier with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return xcam.models.load("xcam:cifar_resnet", depth=DEPTH, num_classes=CLASSES)


def new_head(net: nn.Module, method: str, seed: int) -> nn.Module:
    """Copy a net and give its head new random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        chosen = xcam.get_method(method)(**ATTENTION.get(method, {}))
        headed: nn.Module = chosen.attach(net)
    headed.fitted = True  # so that it can be asked for maps all the same
    return headed.eval()


def equal_weights(net: nn.Module) -> nn.Module:
    """Give LFI-CAM the same importance for every channel: its network's last norm gives zeros."""
    net = copy.deepcopy(net)
    norm = [layer for layer in net.head.fin if isinstance(layer, nn.BatchNorm2d)][-1]
    nn.init.zeros_(norm.weight)
    nn.init.zeros_(norm.bias)
    return net


def accuracies(nets: Mapping[str, nn.Module], test: TensorDataset) -> Iterator[dict[str, object]]:
    """Measure accuracies: of the net by itself; of those with attention, with it on and off."""
    for name in ("plain", *ATTENTION):
        parts = {"accuracy": nets[name]}
        if name in ATTENTION:
            parts["accuracy without its attention"] = nets[name].classifier
        for metric, net in parts.items():
            found = xcam.accuracy(net, test).iloc[-1]
            interval = binomtest(found["correct"], found["n"]).proportion_ci(method="wilson")
            row = {"value": found["accuracy"], "low": interval.low, "high": interval.high}
            yield {"images": "one cue", "judge": name, "metric": metric, **row, "n": found["n"]}


def make_map_source(net: nn.Module) -> Source:
    """Return the maps of the method that a net was trained with, as `evaluate` takes them."""
    return lambda images, ids, target: xcam.explain(net, images, target).maps


def sources(nets: Mapping[str, nn.Module], seed: int) -> dict[str, Source]:
    """Return the maps of all heads, of new heads in their place, and of entirely new nets."""
    found = {name: nets[name] for name in (*ATTENTION, *HEADS)}
    found["lficam, equal weights"] = equal_weights(nets["lficam"])
    for method in ATTENTION:
        found[f"{method}, new head"] = new_head(nets[method].classifier, method, seed)
        found[f"{method}, new net"] = new_head(new_net(seed), method, seed)
    found["lcam, new head"] = new_head(nets["plain"], "lcam_fm", seed)
    return {name: make_map_source(net) for name, net in found.items()}


def scored(nets: Mapping[str, nn.Module], data: PlantedCues, seed: int, kind: str) -> pd.DataFrame:
    """Compute every result, and the differences that claims rest on, with intervals over images."""
    found = []
    for judge in ("plain", *ATTENTION) if kind == "one cue" else ("plain",):
        results = xcam.evaluate(
            nets[judge],
            DataLoader(data, batch_size=50),
            ["gradcam"] if judge == "plain" else ["gradcam", judge],
            METRICS,
            target="label",
            maps=sources(nets, seed) if judge == "plain" else None,
            progress=True,
        )
        found.append(results.table().assign(judge=judge))
        for name in (*ATTENTION, *HEADS) if judge == "plain" else ():
            untrained = (
                ["lcam, new head"] if name in HEADS else [f"{name}, new head", f"{name}, new net"]
            )
            for other in (*untrained, "gradcam", "center_gaussian", "random"):
                pair = results.compare(name, other).rename(columns={"difference": "value"})
                found.append(pair.assign(judge=judge, method=name, minus=other))
    return pd.concat(found).assign(images=kind)


def preferences(
    nets: Mapping[str, nn.Module], two: PlantedCues, seed: int
) -> Iterator[dict[str, object]]:
    """Compute the share of the maps' mass on both discs that is on the explained class's."""
    images, labels, own = stacked(two)
    other = own.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    pictures = torch.arange(len(labels)) // 2
    explained = {
        name: xcam.explain(nets["plain"], images, labels, name).maps
        for name in ("gradcam", "center_gaussian", "random", "sobel")
    }
    for name, maps in sources(nets, seed).items():
        explained[name] = maps(images, (), labels)
    for name, maps in explained.items():
        mass = maps.clamp(min=0)
        here, both = (mass * own).sum((1, 2)), (mass * (own | other)).sum((1, 2))
        share = torch.where(both > 0, here / both, 0.5)  # none on either prefers neither
        (found,) = estimate([Sample.of(share.double(), pictures)], lambda mean: mean)
        low, high = found.interval()
        row = {"value": found.value, "low": low, "high": high, "n": found.images, "method": name}
        yield {"images": "two cues", "judge": "plain", "metric": "preference", **row}


def lost(nets: Mapping[str, nn.Module], data: PlantedCues) -> Iterator[dict[str, object]]:
    """Find the classes with no positive map of a head, and the class of a black image."""
    images, labels, _ = stacked(data)
    with torch.no_grad():
        odds = nets["plain"](torch.zeros_like(images[:1])).softmax(1)[0]
    black = f"{int(odds.argmax())} ({float(odds.max()):.0%})"
    for head in HEADS:
        highest = xcam.explain(nets[head], images, labels).maps.amax((1, 2))
        dark = [str(k) for k in range(CLASSES) if not (highest[labels == k] > 0).any()]
        yield {"head": head, "classes without maps": ", ".join(dark), "black": black}


def polarity(nets: Mapping[str, nn.Module], data: PlantedCues) -> Iterator[dict[str, object]]:
    """Count the classes whose ABN attention is higher on the disc than beside it; how much."""
    images, labels, masks = stacked(data)
    for name in ("abn", POSITIVE):
        maps = xcam.explain(nets[name], images).maps
        on, off = ((maps * part).sum((1, 2)) / part.sum((1, 2)) for part in (masks, ~masks))
        by_class = torch.stack([(on - off)[labels == k].mean() for k in range(CLASSES)])
        low, high = map(float, by_class.aminmax())
        signs = f"{int((by_class > 0).sum())} of {CLASSES}"
        yield {"net": name, "higher": signs, "lowest": low, "highest": high}


def evidence(nets: Mapping[str, nn.Module], data: PlantedCues) -> Iterator[dict[str, object]]:
    """Measure the plain net's confidence from its last features on the disc, and beside it."""
    images, labels, masks = stacked(data)
    net, odds = nets["lcam_fm"], {}
    place = Place(net.method.layer)
    for name, wanted in (("on the disc", 1), ("beside it", 0)):

        def part(features: Tensor, wanted: int = wanted) -> Tensor:
            cells = F.adaptive_max_pool2d(masks[:, None].float(), features.shape[2:])
            return features * (cells == wanted)

        with torch.no_grad():
            odds[name] = tapped(net, images, {place: part}).softmax(1)
    for k in range(CLASSES):
        means = {name: float(found[labels == k, k].mean()) for name, found in odds.items()}
        yield {"class": k, **means}


def measured(out: Path, seed: int, images: int, epochs: int, test_images: int) -> pd.DataFrame:
    """Compute all results of one seed, and write `results.csv` in its folder."""
    nets = trained(out, seed, images, epochs)
    one, two = (drawn(test_images // cues, 10 * seed + 1 + cues, cues) for cues in (1, 2))
    table = pd.concat(
        [
            pd.DataFrame(accuracies(nets, TensorDataset(*stacked(one)[:2]))),
            scored(nets, one, seed, "one cue"),
            scored(nets, two, seed, "two cues"),
            pd.DataFrame(preferences(nets, two, seed)),
        ]
    ).assign(seed=seed)
    table.to_csv(out / "results.csv", index=False, float_format="%.6g")
    for part in (lost, evidence, polarity):
        found = pd.DataFrame(part(nets, one)).assign(seed=seed)
        found.to_csv(out / f"{part.__name__}.csv", index=False, float_format="%.2f")
    draw(nets, two, out / "maps.png")
    return table


def draw(nets: Mapping[str, nn.Module], two: PlantedCues, path: Path) -> None:
    """Draw the maps of some images with two discs."""
    some, labels = (part[:6] for part in stacked(two)[:2])
    found = {"Grad-CAM": xcam.explain(nets["plain"], some, labels, "gradcam")}
    found |= {name: xcam.explain(nets[name], some, labels) for name in (*HEADS, *ATTENTION)}
    overlays = {name: explanation.overlay(some) for name, explanation in found.items()}
    figures.draw_grid(some, overlays, found["Grad-CAM"].captions(), path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder, one a seed in it")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the images")
    parser.add_argument("--images", type=int, default=1600, help="to train on")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="half as many for heads")
    parser.add_argument("--test-images", type=int, default=200)
    options = parser.parse_args(arguments)
    out = options.out / str(options.seed)
    print(measured(out, options.seed, options.images, options.epochs, options.test_images))


if __name__ == "__main__":
    main()
