"""LFI-CAM against its formulas, worked out cell by cell in double precision."""

import math

import pytest
import torch
from torch import nn

from xcam.core import Headed
from xcam.methods.trainable.lficam import LFICAM, FeatureImportance


class Given(nn.Module):
    """In the last stage's place: features that are a parameter, of whatever images."""

    def __init__(self, features):
        super().__init__()
        self.features = nn.Parameter(features)

    def forward(self, images):
        return self.features * 1


class Pooled(nn.Module):
    """A backbone of such features, the mean of each channel, and one linear layer."""

    def __init__(self, features, classes):
        super().__init__()
        self.last = Given(features)
        self.fc = nn.Linear(features.shape[1], classes)

    def forward(self, images):
        return self.fc(self.last(images).mean((2, 3)))


def published(backbone, fin, images):
    """The logits. FIN is given, since in training its batch norms see all images at once."""
    features = backbone.last.features
    masked = [
        masked_channels(maps, small_grey(image, *maps.shape[1:]))
        for maps, image in zip(features, images, strict=True)
    ]
    scores = fin(torch.stack(masked))
    return torch.stack(
        [backbone.fc(pooled(maps, own)) for maps, own in zip(features, scores, strict=True)]
    )


def masked_channels(maps, gray):
    """Each channel over its range, 0 where it is 0, times the grey image."""
    masked = []
    for channel in maps:
        cells = list(channel.flatten())
        ranged = [
            torch.where(cell != 0, value, 0) for cell, value in zip(cells, over(cells), strict=True)
        ]
        masked.append(torch.stack(ranged).reshape(gray.shape) * gray)
    return torch.stack(masked)


def over(cells):
    """Numbers less their least, over their range; 1 for numbers without."""
    least, greatest = torch.stack(cells).min(), torch.stack(cells).max()
    if least == greatest:
        return [torch.ones_like(least) for _ in cells]
    return [(cell - least) / (greatest - least) for cell in cells]


def small_grey(image, height, width):
    """The mean of the channels, read between the pixels at the centre of each of the cells."""
    gray = (image[0] + image[1] + image[2]) / 3
    steps = image.shape[1] / height, image.shape[2] / width
    return torch.stack(
        [
            torch.stack(
                [
                    between(gray, (i + 0.5) * steps[0] - 0.5, (j + 0.5) * steps[1] - 0.5)
                    for j in range(width)
                ]
            )
            for i in range(height)
        ]
    )


def between(gray, row, column):
    """Weighted by nearness; beyond the outermost centres the border goes on."""
    row, column = max(row, 0), max(column, 0)
    total = 0
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            pixel = gray[min(i, len(gray) - 1), min(j, len(gray[0]) - 1)]
            total = total + pixel * (1 - abs(row - i)) * (1 - abs(column - j))
    return total


def pooled(maps, scores):
    """The mean of each channel of F (1 + A), with the scores of the channels at each cell."""
    powers = [torch.exp(sum(own.flatten()) / own.numel()) for own in scores]
    weights = [power / sum(powers) for power in powers]
    channels = [channel.flatten() for channel in maps]
    raw = []
    for cell in range(len(channels[0])):
        total = sum(
            weight * channel[cell] for weight, channel in zip(weights, channels, strict=True)
        )
        raw.append(total if total > 0 else total * 0)
    attention = over(raw)
    return torch.stack(
        [
            sum(f * (1 + a) for f, a in zip(channel, attention, strict=True)) / len(raw)
            for channel in channels
        ]
    )


@pytest.mark.parametrize("size", [(12, 16), (8, 9)])
def test_values_and_gradients(size):
    """With respect to the features, the images and the weights: nothing is cut off."""
    torch.manual_seed(0)
    features = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    features[:, 1].relu_()
    features[0, 2, 1, :2] = 0  # within its range
    features[:, 3] = 0
    features[:, 4] = 0.7
    importance = FeatureImportance(5, "every")
    net = Headed(Pooled(features, 3), importance, LFICAM(layer="last")).double().train()
    images = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    found, wanted = net(images), published(net.classifier, importance.fin, images)
    assert torch.allclose(found, wanted, atol=1e-12)

    leaves = [images, *net.parameters()]
    factors = torch.arange(6.0).view(2, 3)
    gradients = [
        torch.autograd.grad((logits * factors).sum(), leaves) for logits in (found, wanted)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        assert theirs.abs().sum() > 0
        assert torch.allclose(ours, theirs, atol=1e-10)
