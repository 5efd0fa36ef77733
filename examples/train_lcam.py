"""Trains a classifier, then L-CAM's two heads on it frozen, and draws what each class looks at.

`python examples/train_lcam.py` takes about half a minute on two cores, and needs no data: the
images are generated: on black, a disc whose colour is the class, and grey ones. Trained on images
with one coloured disc, the heads are shown images with two. Of the class that the classifier takes
a black image for, nothing has to be shown, and its maps may vanish.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

import xcam
from xcam.core import figures
from xcam.data import PlantedCues, planted_cues

SIZE, CLASSES = 48, 8
CLASSIFIER = {"name": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
# The published optimiser, and what the published code regularises.
HEAD = {"name": "SGD", "lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
GROUPS = {"bias": {"lr_factor": 2}}
METHODS = ("lcam_fm", "lcam_img")


def draw_images(count: int, seed: int, cues: int = 1) -> PlantedCues:
    """Draw images of one or two colored discs."""
    black = torch.zeros(1, 3, SIZE, SIZE)
    return planted_cues(count, SIZE, CLASSES, "color", seed, black, cues=cues)


def stack(data: PlantedCues) -> tuple[Tensor, Tensor, Tensor]:
    """Stack all images (B, 3, H, W), labels (B,) and masks (B, H, W)."""
    images, labels, masks = zip(*data, strict=True)
    return torch.stack(images), torch.tensor(labels), torch.stack(masks)


def measure_hits(explanation: xcam.Explanation, masks: Tensor) -> float:
    """Compute the share of maps whose highest point lies in their mask."""
    highest = explanation.maps.flatten(1).argmax(1, keepdim=True)
    return float(masks.flatten(1).gather(1, highest).float().mean())


def main() -> None:
    """Train, measure and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("lcam-out"), help="folder for the picture")
    parser.add_argument("--images", type=int, default=640, help="to train on")
    parser.add_argument("--epochs", type=int, default=4, help="of each training")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    start = time.perf_counter()
    train = draw_images(options.images, seed=0)
    torch.manual_seed(0)
    net = xcam.models.load("xcam:cifar_resnet", depth=8, num_classes=CLASSES)
    training = {"epochs": options.epochs, "batch_size": 16, "progress": True}
    falling = {"name": "CosineAnnealingLR", "T_max": options.epochs}
    net = xcam.fit(net, train, optimizer=CLASSIFIER, schedule=falling, **training)
    accuracy = xcam.accuracy(net, draw_images(200, seed=1))["accuracy"].iloc[-1]
    print(f"The classifier is right on {accuracy:.0%} of new images.")

    images, labels, cues = stack(draw_images(50, seed=2, cues=2))
    with torch.no_grad():
        share, black = net(torch.zeros_like(images[:1])).softmax(1).max(1)
    print(f"Black is class {int(black)} to it ({float(share):.0%}), whose maps may vanish.")
    others = cues.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    found = {"gradcam": xcam.explain(net, images, labels, "gradcam")}
    for name in METHODS:
        head = xcam.fit(net, train, name, optimizer=HEAD, groups=GROUPS, **training)
        found[name] = xcam.explain(head, images, labels)
        xcam.save(head, options.out / f"{name}.safetensors")

    print("Highest points of maps for one of two discs: on this one, on the other:")
    overlays = {}
    for name, explanation in found.items():
        title = xcam.get_method(name).spec.title
        own, other = measure_hits(explanation, cues), measure_hits(explanation, others)
        print(f"  {title:<12}{own:6.0%}{other:6.0%}")
        overlays[title] = explanation[:8].overlay(images[:8])
    rows = found["gradcam"][:8].captions()
    figures.draw_grid(images[:8], overlays, rows, options.out / "lcam.png")
    print(f"The picture: {options.out / 'lcam.png'} ({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
