"""Random generators of an own, which leave the global random states alone."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["make_generator"]


def make_generator(seed: int, index: int) -> torch.Generator:
    """Make the generator of one draw among many, by its number.

    Seed and number are mixed, so that draw 1 of seed 0 is not draw 0 of seed 1.
    """
    # NumPy mixes non-negative numbers alone.
    mixed = np.random.SeedSequence([seed % 2**64, index]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> 1))
