"""Where the truth is known, metrics tell it: the oracle's map above noise, noise above its inverse.

On planted textures, with a small net that has learned them, the map to win is the mask of the
cue, slightly blurred; the one to lose is one minus that. Texture in identical discs, so that the
hole that a removal leaves says nothing of the class.
"""

import functools
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import xcam
from xcam.core import Method, MethodSpec
from xcam.data import planted_cues
from xcam.imaging import blur

SIZE, CLASSES, IMAGES = 48, 4, 64
PAIRS = {"oracle above random": ("oracle", "random"), "random above inverse": ("random", "inverse")}

# Metrics that ask how faithful a map is, and do not order these maps; and why. Each is held to it.
DO_NOT_ORDER: dict[str, dict[str, str]] = {}
"""By metric, then by pair, the reason."""


@dataclass(frozen=True, eq=False, repr=False)
class Given(Method):
    """Maps that are given, whatever becomes of the image: for metrics that explain again."""

    given: torch.Tensor

    spec: ClassVar[MethodSpec] = MethodSpec("given", "Given", "", "control", "none")

    def maps(self, model, images, target):
        return self.given[target.rows]


@functools.cache
def planted(count, seed):
    items = list(planted_cues(count, SIZE, CLASSES, "texture", seed))
    images, labels, masks = zip(*items, strict=True)
    return torch.stack(images), torch.tensor(labels), torch.stack(masks)


def build():
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES)),
    )


def holed(images):
    """Half of the images with a random share of their pixels, or of their 8×8 blocks, black."""
    kept = torch.rand(len(images), 1, 1, 1)
    pixels = torch.rand(len(images), 1, SIZE, SIZE) < kept
    blocks = F.interpolate((torch.rand(len(images), 1, 6, 6) < kept).float(), SIZE) > 0
    kind = torch.randint(4, (len(images), 1, 1, 1))
    return images * torch.where(kind == 0, pixels, torch.where(kind == 1, blocks, kind > 1))


def trained(epochs=8, batch=64):
    images, labels, _ = planted(1024, seed=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build()
        optimizer = torch.optim.AdamW(net.parameters())
        steps = epochs * len(images) // batch
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(batch):
                optimizer.zero_grad()
                F.cross_entropy(net(holed(images[rows])), labels[rows]).backward()
                optimizer.step()
                schedule.step()
    return net.eval()
