"""Perturbations of an image that infidelity asks the model about: squares removed, noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from xcam.imaging import Fill, draw_noise, hash_images, make_fill

__all__ = ["Perturbation", "PerturbationKind"]

PerturbationKind: TypeAlias = Literal["square", "noisy_baseline", "noise"]


@dataclass(frozen=True, eq=False)
class Perturbation:
    """A distribution of changed copies of an image.

    Attributes:
        kind: `"square"`, a random square is replaced; `"noisy_baseline"`, the whole image is, by
            the baseline with noise; `"noise"`, noise is added.
        size: Side of a square, as a share of the image's shorter side.
        sigma: Of the noise.
        fill: The baseline.
        n_samples: Copies of an image.
        seed: Of all draws. Squares are drawn for each image by itself, from a hash of it; noise is
            the same for every image.
    """

    kind: PerturbationKind
    size: float
    sigma: float
    fill: Fill
    n_samples: int
    seed: int

    def prepare(self, images: Tensor) -> Callable[[slice], tuple[Tensor, Tensor, Tensor]]:
        """Return what makes a slice of the changed copies of images (B, C, H, W).

        They come in order: B of the first sample, B of the second, and so on. For a slice it
        returns the image of each, (R,); the copies, (R, C, H, W); and which share of an element's
        distance from the baseline is removed, (R, C, H, W), or (R, 1, H, W) for whole pixels.
        """
        background = make_fill(images, self.fill)
        find_masks = self._draw_squares(images) if self.kind == "square" else None

        def change(part: slice) -> tuple[Tensor, Tensor, Tensor]:
            places = torch.arange(part.start, part.stop, device=images.device)
            rows = places % len(images)
            some, behind = images[rows], background[rows]
            if find_masks is not None:
                masks = find_masks(rows, places // len(images))
                return rows, torch.where(masks, behind, some), masks.to(images.dtype)
            noise = self.sigma * draw_noise(images, part, self.seed)
            changed = noise + (behind if self.kind == "noisy_baseline" else some)
            distance = some - behind
            shares = (some - changed) / distance.where(distance != 0, torch.inf)
            return rows, changed, shares

        return change

    def _draw_squares(self, images: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Draw the squares, and return what makes masks (R, 1, H, W) for images and samples."""
        height, width = images.shape[2:]
        side = max(1, round(self.size * min(height, width)))
        room = torch.tensor([height - side + 1, width - side + 1])
        generators = (torch.Generator().manual_seed(one) for one in hash_images(images, self.seed))
        drawn = [torch.rand(self.n_samples, 2, generator=generator) for generator in generators]
        corners = (torch.stack(drawn) * room).long().minimum(room - 1).to(images.device)
        lines = [torch.arange(length, device=images.device) for length in (height, width)]

        def find_masks(rows: Tensor, samples: Tensor) -> Tensor:
            tops, lefts = corners[rows, samples, :, None].unbind(1)
            vertical = (lines[0] >= tops) & (lines[0] < tops + side)
            horizontal = (lines[1] >= lefts) & (lines[1] < lefts + side)
            return (vertical[:, :, None] & horizontal[:, None])[:, None]

        return find_masks
