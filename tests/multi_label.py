"""Images that show several of three classes, and a small net for them."""

import torch
from torch import nn
from torch.utils.data import Dataset

CLASSES = ("red", "green", "blue")


class Colors(Dataset):
    """Pictures with a bright corner of each color that they show; it notes its items.

    With `truth`, an item has a box of each class, NaN of those that it does not show.
    """

    classes = CLASSES

    def __init__(self, count=24, seed=0, listed=True, truth=False):
        generator = torch.Generator().manual_seed(seed)
        shown = torch.rand(count, 3, generator=generator) > 0.5
        shown[torch.arange(count), torch.arange(count) % 3] = True
        self.images = torch.rand(count, 3, 8, 8, generator=generator) / 4
        self.shown, self.truth, self.loaded = shown, truth, []
        for k in range(3):
            self.images[shown[:, k], k, : 3 + k, 2 * k : 2 * k + 3] += 0.7
        if listed:
            self.labels = shown

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.loaded.append(index)
        item = self.images[index], self.shown[index]
        if not self.truth:
            return item
        boxes = torch.full((3, 1, 4), torch.nan)
        for k in self.shown[index].nonzero().flatten().tolist():
            boxes[k, 0] = torch.tensor([2.0 * k, 0, 2 * k + 3, 3 + k])
        return *item, boxes


class ColorNet(nn.Module):
    """Two convolutions, the second with batch norm if wanted, pooled, and a linear classifier."""

    def __init__(self, seed=0, norm=True):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
            normalize = nn.BatchNorm2d(8) if norm else nn.Identity()
            self.stage = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), normalize, nn.ReLU())
            self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 3)

    def forward(self, images):
        return self.fc(self.pool(self.stage(self.stem(images))).flatten(1))
