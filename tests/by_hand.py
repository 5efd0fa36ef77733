"""Explanations made by hand, and curves made step by step in place, as the papers' codes do."""

import math

import torch

from xcam.core import Explanation, SavedMethod


def explained(maps, target):
    """The explanation of one class an image whose maps are these."""
    maps = maps.float()
    size = tuple(maps.shape[-2:])
    return Explanation(maps, size, torch.as_tensor(target), None, SavedMethod("by_hand"))


def seeded(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def edited(start, finish, scores, step):
    """Each picture on the way from `start` to `finish` (C, H, W), highest of `scores` first."""
    picture = start.clone()
    order = sorted(range(scores.numel()), key=lambda i: -float(scores.flatten()[i]))  # stable
    yield picture.clone()
    for number in range(math.ceil(len(order) / step)):
        for place in order[number * step : (number + 1) * step]:
            row, column = divmod(place, scores.shape[1])
            picture[:, row, column] = finish[:, row, column]
        yield picture.clone()


def curve_of(model, pictures, target, prob=True):
    """The target's probability, or logit, for one picture after the other."""
    with torch.no_grad():
        logits = [model(picture[None])[0] for picture in pictures]
    return torch.stack([(z.softmax(0) if prob else z)[target] for z in logits])
