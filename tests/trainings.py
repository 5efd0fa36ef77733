"""A small data set and a small net to train, with all that makes a resumption hard."""

import random

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

import xcam

CLASSES = 3


class Noisy(Dataset):
    """Pictures with a bright corner a class, augmented by three generators; it notes its items."""

    def __init__(self, count=44, seed=0, noise=0.1, size=8):
        generator = torch.Generator().manual_seed(seed)
        self.labels = [index % CLASSES for index in range(count)]
        self.images = torch.rand(count, 3, size, size, generator=generator)
        for image, label in zip(self.images, self.labels, strict=True):
            image[:, :3, 2 * label : 2 * label + 3] += 1
        self.noise, self.loaded = noise, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.loaded.append(index)
        image = self.images[index] / 2
        if self.noise:
            drawn = torch.rand(()) + np.random.rand() + random.random()
            image = image + self.noise * drawn + self.noise * torch.randn(image.shape)
        return image, self.labels[index]


class Net(nn.Module):
    """Convolution, batch norm, dropout; `plain` leaves the latter two out."""

    def __init__(self, seed=0, plain=False):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.features = nn.Sequential(
                nn.Conv2d(3, 6, 3, padding=1),
                nn.Identity() if plain else nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.Identity() if plain else nn.Dropout2d(0.3),
                nn.Conv2d(6, 8, 3, stride=2),
                nn.ReLU(),
            )
            self.fc = nn.Linear(8, CLASSES)

    def forward(self, images):
        return self.fc(self.features(images).mean((2, 3)))


EVERYTHING = {
    "epochs": 3,
    "batch_size": 8,
    "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
    "schedule": {"name": "CosineAnnealingLR", "T_max": 12, "warmup": 1, "per": "step"},
    "groups": {r"fc\.": {"lr_factor": 2.0}},
    "mix": {"mixup": 0.3, "cutmix": 1.0},
    "ema": {"decay": 0.8, "every": 2},
    "clip": 5.0,
    "keep_every": 2,
    "save_minutes": 0.0,
}


def train(out=None, data=None, model=None, **arguments):
    """A training that uses everything, unless told otherwise."""
    return xcam.fit(
        Net() if model is None else model,
        Noisy() if data is None else data,
        out=out,
        **EVERYTHING | {"validation": Noisy(12, seed=1)} | arguments,
    )


def plain(data, model=None, **arguments):
    """A training of one step an epoch without anything that is random."""
    model = Net(plain=True) if model is None else model
    defaults = {"epochs": 1, "optimizer": {"name": "SGD", "lr": 0.1}}
    if "batch_size" not in arguments:
        defaults["batch_size"] = len(data)
    return xcam.fit(model, data, **defaults | arguments)


def log(folder):
    """The log of a training, without the times."""
    return pd.read_csv(folder / "log.csv").drop(columns="seconds")


def weights(net):
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


def assert_close(found, expected, tolerance=1e-6):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=tolerance, atol=tolerance)


def assert_same_training(found, expected):
    """Equal files of two folders: nets, log, and the state to go on with, bit for bit."""
    names = sorted(path.name for path in found.iterdir())
    wanted = sorted(path.name for path in expected.iterdir())
    assert names == wanted, f"{names} instead of {wanted}"
    for name in names:
        if name.endswith(".safetensors"):
            assert_same_bits(load_file(found / name), load_file(expected / name))
    pd.testing.assert_frame_equal(log(found), log(expected), check_exact=True)
    states = [torch.load(folder / "training.pt", weights_only=True) for folder in (found, expected)]
    for state in states:
        for row in state["history"]:
            del row["seconds"]
        del state["seconds"]
    _assert_equal(*states)


def _assert_equal(one, other, path="state"):
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            _assert_equal(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for index, pair in enumerate(zip(one, other, strict=True)):
            _assert_equal(*pair, f"{path}.{index}")
    else:
        assert one == other, path
