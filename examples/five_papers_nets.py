"""The images and nets of `five_papers.py`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset, default_collate
from train_fashion_mnist import SETTINGS

import xcam
from xcam.core import Method
from xcam.models.whitebox.cbam import CBAM
from xcam.models.whitebox.ran import AttentionModule

SIZE, CLASSES, WIDTH = 32, 8, 64  # of images with planted cues; channels of the net's last stage
FROZEN, CONTINUED = "frozen", "frozen, trained on"
# By the title of each net: the method that it is made for, and that method's parameters.
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "LFI-CAM": ("lficam", {"fin_relu": "alternate"}),
    "ABN": ("abn", {}),
    "L-CAM-Fm": ("lcam_fm", {}),
    "L-CAM-Img": ("lcam_img", {}),
    "CALM-EM": ("calm", {"loss": "em"}),
    "CALM-ML": ("calm", {"loss": "ml"}),
    "CA-Stream": ("castream", {}),
    "CBAM": ("cbam", {}),
    "RAN": ("ran", {}),
    CONTINUED: ("gradcam", {}),
}
MODULES: dict[str, Callable[[], nn.Module]] = {
    "cbam": lambda: CBAM(WIDTH),
    "ran": lambda: AttentionModule(WIDTH, WIDTH, skips=1),
}


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        images: To train on.
        epochs: Of each training.
        test: Images to measure accuracies on.
        scored: Images to score maps on.
        retrained: Of the images to train on, those that nets are retrained on.
        fractions: Of the pixels, that are removed for it.
        masks: Of RISE.
        samples: Steps of Integrated Gradients, noisy copies of SmoothGrad.
        settings: By how many settings nets are trained to see how stable their maps are.
        resamples: Of intervals and tests.
    """

    images: int = 3000
    epochs: int = 6
    test: int = 500
    scored: int = 100
    retrained: int = 1500
    fractions: tuple[float, ...] = (0.1, 0.5)
    masks: int = 200
    samples: int = 16
    settings: int = 5
    resamples: int = 2000


QUICK = Sizes(128, 1, 32, 6, 64, (0.5,), 8, 2, 2, 100)


@dataclass(frozen=True)
class Part:
    """The images of a data set with a seed, and settings of the net for them.

    Attributes:
        train: To train on.
        test: To measure accuracies on.
        scored: To score maps on, with masks of what decides the class where that is known.
        two: Images with two cues, each twice in a row, with the masks that `Preference` takes.
        net: Settings of the net.
    """

    train: TensorDataset
    test: TensorDataset
    scored: TensorDataset
    two: TensorDataset | None
    net: Mapping[str, Any]

    def make_net(self) -> nn.Module:
        """Return the net with weights from torch's global generator."""
        net = xcam.models.load("xcam:cifar_resnet", depth=8, **self.net)
        return net.to(memory_format=torch.channels_last)  # takes two thirds of the time

    def make_seeded_net(self, seed: int) -> nn.Module:
        """Return the net with the weights of a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make_net()


def draw_cues(seed: int, sizes: Sizes) -> Part:
    """Draw images of which the color of a disc decides the class."""

    def draw(count: int, stream: int, cues: int = 1) -> xcam.data.PlantedCues:
        return xcam.data.planted_cues(count, SIZE, CLASSES, "color", 10 * seed + stream, cues=cues)

    counts = sizes.images, sizes.test, sizes.scored
    train, test, scored = (default_collate([*draw(n, k)]) for k, n in enumerate(counts))
    pairs = draw(sizes.scored // 2, len(counts), cues=2)
    images, labels, own = default_collate([*pairs])
    other = own.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    two = TensorDataset(images, labels, own.byte().masked_fill(~(own | other), 255))
    two.ids = pairs.ids  # so that intervals count both rows of an image as one
    parts = TensorDataset(*train[:2]), TensorDataset(*test[:2]), TensorDataset(*scored)
    return Part(*parts, two, {"num_classes": CLASSES, "input_size": SIZE})


def load_fashion_mnist(root: Path, seed: int, sizes: Sizes) -> Part:
    """Load images of Fashion-MNIST, other ones for each seed."""
    splits = xcam.data.load("fashion_mnist", root)
    generator = torch.Generator().manual_seed(seed)

    def load(split: Dataset[Any], *counts: int) -> Iterator[TensorDataset]:
        if len(split) < sum(counts):
            found = f"{sum(counts)} images are drawn of {len(split)} in {str(root)!r}"
            raise ValueError(f"{found}; give --root a folder with all of Fashion-MNIST")
        order = torch.randperm(len(split), generator=generator).tolist()
        for count in counts:
            chosen, order = order[:count], order[count:]
            yield TensorDataset(*default_collate([split[index] for index in chosen]))

    parts = *load(splits.train, sizes.images), *load(splits.test, sizes.test, sizes.scored)
    net = {"num_classes": 10, "in_channels": 1, "input_size": 28, "mean": [0.286], "std": [0.353]}
    return Part(*parts, None, net)


def make_post_hoc(sizes: Sizes) -> dict[str, Method]:
    """Make the methods that explain the frozen net."""
    methods: dict[str, tuple[str, dict[str, int]]] = {
        "Grad-CAM": ("gradcam", {}),
        "Grad-CAM++": ("gradcam_plusplus", {}),
        "Score-CAM": ("scorecam", {}),
        "RISE": ("rise", {"n_masks": sizes.masks}),
        "Integrated Gradients": ("integrated_gradients", {"n_steps": sizes.samples}),
        "SmoothGrad": ("smoothgrad", {"n_samples": sizes.samples}),
    }
    return {title: xcam.get_method(name)(**given) for title, (name, given) in methods.items()}


def make_settings(name: str, images: int, epochs: int) -> dict[str, Any]:
    """Return the settings of a training: those of the nets that come with xcam."""
    settings = SETTINGS.get(name, SETTINGS["abn"])
    if name == FROZEN:
        settings = {"optimizer": {**settings["optimizer"], "lr": 0.1}}
    schedule = {
        "name": "OneCycleLR",
        "max_lr": settings["optimizer"]["lr"],
        "total_steps": -(-images // 64) * epochs,
        "per": "step",
    }
    common = {"epochs": epochs, "batch_size": 64, "precision": "bf16"}
    return {**settings, **common, "schedule": schedule}


def add_module(net: nn.Module, name: str, seed: int) -> nn.Module:
    """Return a copy of the net; with CBAM's or RAN's module behind the last stage, for these."""
    changed = copy.deepcopy(net)
    if name in MODULES:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            changed.model.stage3.append(MODULES[name]())
    return changed


def train_nets(part: Part, out: Path, sizes: Sizes, seed: int) -> dict[str, nn.Module]:
    """Train the frozen net and, from its weights, all others."""
    count, epochs, new = len(part.train), sizes.epochs, part.make_seeded_net(seed)
    settings = make_settings(FROZEN, count, epochs)
    nets = {FROZEN: xcam.fit(new, part.train, out=out / FROZEN, seed=seed, **settings)}
    for title, (name, given) in HEADS.items():
        head = {"method": name, **given} if name in SETTINGS else {}
        settings = make_settings(name, count, epochs) | head
        start = add_module(nets[FROZEN], name, seed)
        nets[title] = xcam.fit(start, part.train, out=out / title, seed=seed, **settings)
    return nets
