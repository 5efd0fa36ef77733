"""Do models that were trained differently look at the same pixels? LFI-CAM beside ABN.

    python examples/stability_of_attention.py --out runs/stability

trains models with LFI-CAM's attention and with ABN's, each by another learning rate, weight decay,
batch size and seed, on images of which a colour decides the class. Their maps of the test images go
to `METHOD/MODEL/IMAGE.npy` in the folder, and what is printed is how far they agree: the IoU of
the pixels above 100 of 255, for every pair of models, as `xcam stability A B` prints it of two of
the folders. Beside it stands the IoU with the other model's map of another image, which is what
maps reach that are high in the same places whatever they see; the accuracies, without which
agreement is worth little; and the same of nets that have learned nothing: what they agree on is in
the images and the architecture.

The authors' figure (Lee et al., 2021, arXiv:2105.00937), of five models each, has 0.60 for LFI-CAM
and 0.29 for ABN on CIFAR-10: other data, nets and settings, and probably counted in rows (`--mode
row`), as their code does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import xcam
from xcam.explanations.folder import write_array

# With the parameters that the recipes give them for CIFAR nets.
METHODS = {"lficam": {"fin_relu": "alternate"}, "abn": {}}
SETTINGS = (
    {"lr": 0.05, "weight_decay": 1e-4, "batch_size": 64},
    {"lr": 0.1, "weight_decay": 1e-4, "batch_size": 64},
    {"lr": 0.05, "weight_decay": 1e-3, "batch_size": 64},
    {"lr": 0.05, "weight_decay": 1e-4, "batch_size": 32},
    {"lr": 0.02, "weight_decay": 5e-4, "batch_size": 32},
)


def make_images(count: int, size: int, seed: int) -> TensorDataset:
    """Make images whose class is the color of a disc at a random place; other discs are gray."""
    cues = xcam.data.planted_cues(count, size, num_classes=8, mode="color", seed=seed)
    images, labels, _ = zip(*(cues[index] for index in range(count)), strict=True)
    return TensorDataset(torch.stack(images), torch.tensor(labels))


def make_backbone(depth: int, seed: int) -> nn.Module:
    """Make a small ResNet with new weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return xcam.models.load("xcam:cifar_resnet", depth=depth, num_classes=8)


def train(net: nn.Module, data: TensorDataset, method: str, number: int, epochs: int) -> nn.Module:
    """Return the net with a method's attention, trained by one of the settings."""
    settings = SETTINGS[number]
    optimizer = {"name": "SGD", "momentum": 0.9, "nesterov": True}
    optimizer |= {name: settings[name] for name in ("lr", "weight_decay")}
    return xcam.fit(
        net,
        data,
        method,
        epochs=epochs,
        batch_size=int(settings["batch_size"]),
        optimizer=optimizer,
        schedule={"name": "CosineAnnealingLR", "T_max": epochs},
        seed=number,
        progress=sys.stderr.isatty(),
        **METHODS[method],
    )


def make_untrained(net: nn.Module, method: str, seed: int) -> nn.Module:
    """Return the net with a method's attention, both with new weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        headed: nn.Module = xcam.get_method(method)(**METHODS[method]).attach(net)
    headed.fitted = True  # so that it can be asked for maps all the same
    return headed.eval()


def write_maps(maps: Tensor, folder: Path) -> Path:
    """Write the map of each image as `.npy`, and return the folder."""
    for number, single in enumerate(maps):
        write_array(folder / f"{number:06d}.npy", single)
    return folder


def measure_accuracy(net: nn.Module, data: TensorDataset) -> float:
    """Compute the share of the images that the net classifies correctly."""
    return float(xcam.accuracy(net, data)["accuracy"].iloc[-1])


def compute_agreements(folders: Sequence[Path], mode: str) -> Iterator[float]:
    """Compute the IoU of each pair of models."""
    for a, b in combinations(folders, 2):
        yield float(xcam.stability_iou(a, b, threshold=100, mode=mode).mean())


def compute_chance(maps: Sequence[Tensor], mode: str) -> Iterator[float]:
    """Compute the IoU of each pair of models, one's map of an image, the other's of the next."""
    for a, b in combinations(maps, 2):
        yield float(xcam.stability_iou(a, b.roll(1, 0), threshold=100, mode=mode).mean())


def compare(options: argparse.Namespace) -> pd.DataFrame:
    """Compare trained and untrained nets: mean and range of the IoU over pairs, accuracies."""
    data = make_images(options.images, options.size, seed=0)
    test = make_images(options.test_images, options.size, seed=1)
    images = test.tensors[0]
    lines = []
    for method in METHODS:
        for kind in ("trained", "untrained"):
            folders, maps, right = [], [], []
            for number in range(options.models):
                net = make_backbone(options.depth, number)
                if kind == "trained":
                    net = train(net, data, method, number, options.epochs)
                else:
                    net = make_untrained(net, method, number)
                right.append(measure_accuracy(net, test))
                maps.append(xcam.explain(net, images, method=method).maps)
                folders.append(write_maps(maps[-1], options.out / kind / method / f"{number}"))
            found = pd.Series(compute_agreements(folders, options.mode))
            iou = {"IoU": found.mean(), "lowest": found.min(), "highest": found.max()}
            iou["other images"] = pd.Series(compute_chance(maps, options.mode)).mean()
            accuracies = {"worst accuracy": min(right), "best accuracy": max(right)}
            lines.append({"method": method, "nets": kind, **iou, **accuracies})
    return pd.DataFrame(lines)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the maps")
    parser.add_argument("--models", type=int, default=3, choices=range(2, len(SETTINGS) + 1))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=800, help="to train on")
    parser.add_argument("--test-images", type=int, default=200)
    parser.add_argument("--size", type=int, default=32, help="side of the images")
    parser.add_argument("--depth", type=int, default=14, help="of the ResNet, 6n + 2")
    parser.add_argument("--mode", default="pixel", help="pixel, or row as in LFI-CAM's code")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print how far the models agree."""
    print(compare(parse_arguments(arguments)).to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
