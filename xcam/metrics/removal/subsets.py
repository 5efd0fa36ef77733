"""Random subsets of pixels removed: the score without each, and what the map gives each.

A subset is the beginning of a random order of an image's pixels, so that subsets of several sizes
from one draw are nested. The scores do not depend on the maps: for several methods, and for metrics
that ask for the same draws, they are computed once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xcam.core import Output, Target
from xcam.engine import untouched
from xcam.engine.masking import masked_passes
from xcam.engine.shared import shareable
from xcam.imaging import Fill, hash_images
from xcam.metrics.precision import to_finest
from xcam.metrics.reading import check_changed, make_score_reader
from xcam.models.normalized import Space, enter_space

__all__ = ["correlate_samples", "draw_ranks", "score_without_subsets", "sum_over_subsets"]

# Chunks of different sizes change a score by less, as a share of it.
_ROUNDING = 1e-6


@shareable
def score_without_subsets(
    model: nn.Module,
    images: Tensor,
    target: Target,
    sizes: tuple[int, ...],
    n_samples: int,
    seed: int,
    output: Output,
    fill: Fill,
    space: Space,
    contrast: Target | None = None,
) -> Tensor:
    """Return the explained class's scores without random subsets of pixels, (B, P, N).

    Args:
        model: The classifier; left as it was.
        images: (B, C, H, W).
        target: The explained classes.
        sizes: P numbers of pixels.
        n_samples: N draws for each image, from the seed and a hash of it.
        seed: Of the draws.
        output: What of the output is read.
        fill: What replaces pixels.
        space: Where they are replaced.
        contrast: The classes whose scores are subtracted.

    Raises:
        ModelOutputError: A score is not finite.
    """
    batch, points, pixels = len(images), len(sizes), images[0, 0].numel()
    states, limits = hash_images(images, seed), torch.tensor(sizes, device=images.device)

    def masks(part: slice) -> tuple[Tensor, Tensor]:
        pairs = torch.arange(part.start, part.stop, device=images.device)
        draws = pairs // points
        known = range(part.start // points, (part.stop - 1) // points + 1)
        ranks = torch.stack(
            [draw_ranks(states[draw // n_samples], draw % n_samples, pixels) for draw in known]
        ).to(images.device)
        kept = ranks[draws - known.start] >= limits[pairs % points, None]
        return draws // n_samples, kept.view(-1, *images.shape[2:])

    with untouched(model), torch.no_grad():
        net, shown = enter_space(model, images, space)
        read, count = make_score_reader(target, output, contrast), batch * n_samples * points
        found = masked_passes(net, shown, count, masks, read, fill, "subsets of pixels")
    return check_changed(found.view(batch, n_samples, points).mT)


def sum_over_subsets(
    maps: Tensor, images: Tensor, sizes: tuple[int, ...], n_samples: int, seed: int
) -> Tensor:
    """Return the sums of maps (B, H, W) over the subsets that `score_without_subsets` removes.

    Returns:
        (B, P, N), of the finest floating-point type.
    """
    states, values = hash_images(images, seed), to_finest(maps.flatten(1))
    last = torch.tensor(sizes, device=maps.device) - 1
    found = []
    for sample in range(n_samples):
        ranks = torch.stack([draw_ranks(state, sample, values.shape[1]) for state in states])
        ordered = torch.empty_like(values).scatter_(1, ranks.to(maps.device), values)
        found.append(ordered.cumsum(1)[:, last])
    return torch.stack(found, 2)


def correlate_samples(first: Tensor, second: Tensor) -> Tensor:
    """Return Pearson's correlation (…) over the last axis; 0 where either is constant."""
    pair = [to_finest(values) for values in (first, second)]
    varies = torch.stack(
        [values.amax(-1) - values.amin(-1) > _ROUNDING * values.abs().amax(-1) for values in pair]
    ).all(0)
    a, b = (values - values.mean(-1, keepdim=True) for values in pair)
    scale = a.norm(dim=-1) * b.norm(dim=-1)
    found: Tensor = (a * b).sum(-1) / scale.where(varies, 1)
    return found.where(varies, 0).clamp(-1, 1)


def draw_ranks(state: int, sample: int, pixels: int) -> Tensor:
    """Return a random order of an image's pixels: the rank of each, (pixels,) int64."""
    # Torch's generators on the CPU take 32 bits; the golden ratio keeps samples apart.
    generator = torch.Generator().manual_seed((state + sample * 0x9E3779B9) & 0xFFFFFFFF)
    return torch.randperm(pixels, generator=generator)
