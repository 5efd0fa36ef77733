"""Small data, nets and maps for tests of roar."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

import xcam
from xcam.models.toy import GapNet

FIT = {"epochs": 1, "batch_size": 8, "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9}}
SIDE = 8


class Bright(Dataset):
    """Pictures in [0.2, 0.9] whose class is the half that is brighter."""

    def __init__(self, count=20, seed=0, transform=None, prefix=""):
        generator = torch.Generator().manual_seed(seed)
        self.images = 0.2 + 0.5 * torch.rand(count, 3, SIDE, SIDE, generator=generator)
        self.labels = [index % 2 for index in range(count)]
        for image, label in zip(self.images, self.labels, strict=True):
            image[:, :, 4 * label : 4 * label + 4] += 0.2
        self.ids = [f"{prefix}{index}" for index in range(count)]
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        return (self.transform(image) if self.transform else image), self.labels[index]


class Net(nn.Module):
    """Convolution, batch norm, linear; in float64 if asked for, whatever the images are."""

    def __init__(self, dropout=0.0, double=False):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.fc = nn.Linear(4 * 16, 2)
        self.to(torch.float64 if double else torch.float32)

    def forward(self, images):
        return self.fc(self.features(images.to(self.fc.weight.dtype)).flatten(1))


TRAIN, TEST = Bright(prefix="train-"), Bright(12, seed=1, prefix="test-")
EXPLAINED = GapNet(num_classes=2)


def ramp(images, ids, target):
    """Maps that fall from the first pixel to the last."""
    pixels = images.shape[2] * images.shape[3]
    row = torch.arange(pixels, 0, -1.0).view(images.shape[2:])
    return row.expand(len(images), -1, -1)


def roar(out=None, train=TRAIN, test=TEST, make_model=Net, methods=(), **arguments):
    defaults = {"fit": FIT, "maps": ramp, "fractions": (0.25, 0.5), "repeats": 1, "controls": False}
    arguments = defaults | arguments
    return xcam.roar(make_model, train, test, EXPLAINED, methods, out=out, **arguments)


def lines(results):
    """The rows of results without what differs from run to run."""
    return results.to_pandas().drop(columns=["seconds", "parallel"])


def save_arrays(folder, ids, maps):
    folder.mkdir(parents=True)
    for name, one in zip(ids, maps, strict=True):
        np.save(folder / f"{name}.npy", np.asarray(one))
