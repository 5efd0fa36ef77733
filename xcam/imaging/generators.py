"""Random generators of an own, which leave the global random states alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["draw_noise", "make_generator"]


def make_generator(seed: int, index: int) -> torch.Generator:
    """Make the generator of one draw among many, by its number.

    Seed and number are mixed, so that draw 1 of seed 0 is not draw 0 of seed 1.
    """
    # NumPy mixes non-negative numbers alone.
    mixed = np.random.SeedSequence([seed % 2**64, index]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> 1))


def draw_noise(images: Tensor, part: slice, seed: int, uniform: bool = False) -> Tensor:
    """Draw the noise (R, C, H, W) of some of the noisy copies of images.

    The noise of a copy is the same for every image, and drawn on the CPU: it depends on neither
    the batch nor the device.

    Args:
        images: (B, C, H, W).
        part: Which copies: B of the first sample, B of the second, and so on.
        seed: Of all noise.
        uniform: Whether elements are uniform in [−1, 1], and not normal with σ = 1.
    """
    count, shape = len(images), images.shape[1:]
    samples = range(part.start // count, (part.stop - 1) // count + 1)
    generators = (make_generator(seed, sample) for sample in samples)
    if uniform:
        drawn = [2 * torch.rand(shape, generator=generator) - 1 for generator in generators]
    else:
        drawn = [torch.randn(shape, generator=generator) for generator in generators]
    places = torch.arange(part.start, part.stop, device=images.device)
    return torch.stack(drawn).to(images)[places // count - samples.start]
