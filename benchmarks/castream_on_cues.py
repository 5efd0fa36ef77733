"""What attention in place of average pooling does to CAMs: CA-Stream on two data sets.

    python benchmarks/castream_on_cues.py --out runs/castream --seed 0
    python benchmarks/castream_on_cues.py --out runs/castream --seed 0 --data fashion_mnist --root R

trains a ResNet-18 on planted cues, or on Fashion-MNIST, of 64 pixels a side; then CA-Stream's
blocks on it, frozen. Grad-CAM, Grad-CAM++ and Score-CAM of either net are made and stored; then
each is scored by both nets, so that a map is also judged by a net that did not make it. Stopped, it
goes on.

    python benchmarks/castream_tables.py runs/castream

prints the tables over all seeds in the folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd
import torch
import torchvision
from attention_on_cues import SGD, drawn, stacked
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import xcam
from xcam.core import Method
from xcam.methods import GradCAM, GradCAMPlusPlus, ScoreCAM
from xcam.results.tables import castream

SIZE, TEST = 64, 500
POOLINGS = {"GAP": "average pooling", "CA": "cross-attention"}
# By name: the method, cut at zero as published, and the precision in which the net runs to make its
# maps.
METHODS: dict[str, tuple[Method, Any]] = {
    "Grad-CAM": (GradCAM(relu=True), "full"),
    "Grad-CAM++": (GradCAMPlusPlus(relu=True), "full"),
    "Score-CAM": (ScoreCAM(relu=True), "bf16"),  # of 513 passes an image
}
LOCALIZATION = {
    "energy": xcam.get_metric("energy_pointing_game")(),
    "pointing game": xcam.get_metric("pointing_game")(tolerance=1),
}
FIT: dict[str, dict[str, Any]] = {
    "GAP": {"optimizer": SGD, "batch_size": 64},
    "CA": {"optimizer": {"name": "AdamW", "lr": 1e-3}, "batch_size": 32},
}


@dataclass(frozen=True)
class Study:
    """The images of a study.

    Attributes:
        train: To train on.
        test: To measure accuracies on.
        scored: To score maps on, with the masks of what decides the class where they are known.
        num_classes: Of the labels.
        epochs: Of the classifier, and of the stream on it.
        lr: The highest rate of the classifier.
    """

    train: TensorDataset
    test: TensorDataset
    scored: TensorDataset
    num_classes: int
    epochs: tuple[int, int]
    lr: float

    @classmethod
    def draw_cues(cls, seed: int, images: int, scored: int) -> Self:
        """Draw images of which the color of a disc decides the class."""
        train, test = (stacked(drawn(n, 10 * seed + k)) for k, n in enumerate((images, TEST)))
        some = TensorDataset(*(part[:scored] for part in test))
        return cls(TensorDataset(*train[:2]), TensorDataset(*test[:2]), some, 8, (5, 6), 0.1)

    @classmethod
    def load_fashion_mnist(cls, root: Path, seed: int, images: int, scored: int) -> Self:
        """Load images of Fashion-MNIST, other ones for each seed, in color and enlarged."""
        splits = xcam.data.load("fashion_mnist", root)
        generator = torch.Generator().manual_seed(seed)

        def load(split: Any, count: int) -> tuple[Tensor, Tensor]:  # noqa: ANN401
            chosen = torch.randperm(len(split), generator=generator)[:count].tolist()
            items = [split[index] for index in chosen]
            small = torch.stack([image for image, _ in items])
            large = F.interpolate(small, (SIZE, SIZE), mode="bilinear").expand(-1, 3, -1, -1)
            return large.contiguous(), torch.tensor([label for _, label in items])

        train, test = load(splits.train, images), load(splits.test, TEST)
        some = TensorDataset(*(part[:scored] for part in test))
        return cls(TensorDataset(*train), TensorDataset(*test), some, 10, (5, 4), 0.02)


def new_net(num_classes: int, seed: int) -> nn.Module:
    """Make a ResNet-18 whose last stage keeps the size of its maps: 4 x 4 cells of 64 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = torchvision.models.resnet18(num_classes=num_classes)
    first = net.layer4[0]
    first.conv1.stride = first.downsample[0].stride = (1, 1)
    return net


def trained(study: Study, out: Path, seed: int) -> dict[str, nn.Module]:
    """Train the classifier, and the stream on it, both on the same images."""
    nets: dict[str, nn.Module] = {}
    methods = {"GAP": None, "CA": "castream"}
    for (name, method), epochs in zip(methods.items(), study.epochs, strict=True):
        settings = FIT[name]
        schedule = {
            "name": "OneCycleLR",
            "max_lr": study.lr if method is None else settings["optimizer"]["lr"],
            "total_steps": -(-len(study.train) // settings["batch_size"]) * epochs,
            "per": "step",
        }
        model = nets.get("GAP") or new_net(study.num_classes, seed)
        nets[name] = xcam.fit(
            model,
            study.train,
            method,
            epochs=epochs,
            out=out / name,
            schedule=schedule,
            seed=seed,
            precision="bf16",
            progress=True,
            **settings,
        )
    return nets


def accuracies(nets: Mapping[str, nn.Module], test: TensorDataset) -> Iterator[dict[str, object]]:
    """Measure the accuracy with either pooling."""
    for name, net in nets.items():
        row = xcam.accuracy(net, test).iloc[-1]
        interval = binomtest(row["correct"], row["n"]).proportion_ci(method="wilson")
        values = {"value": row["accuracy"], "low": interval.low, "high": interval.high}
        yield {"model": name, "metric": "accuracy", "n": row["n"], **values}


def store_maps(nets: Mapping[str, nn.Module], scored: TensorDataset, out: Path) -> dict[str, Path]:
    """Make the maps of the labels that are not yet in the folder; return where each method's are.

    Beside the methods there is the attention of the stream's last block, of whatever class.
    """
    images, labels = scored.tensors[:2]
    sources = {
        f"{name}, {pooling}": (net, *how)
        for pooling, net in nets.items()
        for name, how in METHODS.items()
    }
    sources["attention"] = (nets["CA"], "castream", "full")
    folders = {label: out / label.replace(", ", "_") for label in sources}
    for label, (net, method, precision) in sources.items():
        for index in range(len(images)):
            path = folders[label] / f"{index}.safetensors"
            if not path.exists():
                one = slice(index, index + 1)
                found = xcam.explain(net, images[one], labels[one], method, precision=precision)
                path.parent.mkdir(parents=True, exist_ok=True)
                found.save(path)
    return folders


def scored_maps(
    nets: Mapping[str, nn.Module], scored: TensorDataset, out: Path
) -> Iterator[pd.DataFrame]:
    """Score the stored maps by either net; on cues, also by where they lie."""
    maps = store_maps(nets, scored, out / "maps")
    same: dict[str, Any] = {"target": "label", "controls": False, "progress": True}
    of_label = {label: folder for label, folder in maps.items() if label != "attention"}
    judged = xcam.evaluate(
        dict(nets), scored, (), castream().metrics, maps=of_label, out=out / "judged", **same
    )
    yield judged.table()
    pairs = [judged.compare(f"{name}, CA", f"{name}, GAP") for name in METHODS]
    yield pd.concat(pairs).rename(columns={"difference": "value", "a": "method", "b": "minus"})
    if len(scored.tensors) > 2:
        located = xcam.evaluate(nets["GAP"], scored, (), LOCALIZATION, maps=maps, **same)
        yield located.table().assign(model="")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, explain and score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder, one a data set and seed")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the images")
    parser.add_argument("--data", choices=("cues", "fashion_mnist"), default="cues")
    parser.add_argument("--root", type=Path, default=Path("data"), help="where Fashion-MNIST is")
    parser.add_argument("--images", type=int, help="to train on; 1600 of cues, 4000 of the other")
    parser.add_argument("--scored", type=int, default=24, help="images on which maps are scored")
    options = parser.parse_args(arguments)
    seed, out = options.seed, options.out / options.data / str(options.seed)
    if options.data == "cues":
        study = Study.draw_cues(seed, options.images or 1600, options.scored)
    else:
        images = options.images or 4000
        study = Study.load_fashion_mnist(options.root, seed, images, options.scored)
    nets = trained(study, out, seed)
    accuracy = pd.DataFrame(accuracies(nets, study.test))
    print(accuracy.to_string(index=False))
    table = pd.concat([accuracy, *scored_maps(nets, study.scored, out)])
    table = table.assign(data=options.data, seed=seed)
    table.to_csv(out / "results.csv", index=False, float_format="%.6g")
    print(table.drop(columns=["rows", "errors"], errors="ignore").to_string(index=False))


if __name__ == "__main__":
    main()
