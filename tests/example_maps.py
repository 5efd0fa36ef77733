"""Explanations with maps of one's own, for metrics that look at nothing else."""

import torch

from xcam import Explanation, get_method
from xcam.imaging import resize


def explanation_of(maps, classes=None, count=5, size=None):
    """Of maps (B, h, w) at an input size, for classes of `count`, one an image."""
    rows = torch.arange(len(maps))
    classes = rows % count if classes is None else torch.as_tensor(classes)
    logits = torch.zeros(len(maps), count)
    logits[rows, classes] = 1
    size = tuple(maps.shape[1:]) if size is None else size
    return Explanation(maps, size, classes, logits, get_method("gradcam")())


def scores(metric, maps, truth, classes=None, count=5, size=None):
    """What a metric that runs no model gives for such maps."""
    explanation = explanation_of(maps, classes, count, size)
    images = torch.zeros(len(maps), 3, *explanation.maps.shape[1:])
    return metric.score(torch.nn.Identity(), images, explanation, truth)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def smooth(count, size, seed=0):
    """Maps of a few blobs: (count, size, size)."""
    return resize(noise(count, 7, 7, seed=seed), (size, size))


def blocks(count, size, seed=0):
    """Masks (count, size, size) uint8 of one rectangle each, not two alike."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, size, size, dtype=torch.uint8)
    for mask in masks:
        y, x = torch.randint(size // 2, (2,), generator=generator).tolist()
        height, width = torch.randint(2, size // 2, (2,), generator=generator).tolist()
        mask[y : y + height, x : x + width] = 1
    return masks
