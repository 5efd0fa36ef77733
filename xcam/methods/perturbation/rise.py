"""RISE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from xcam.core import Count, Method, MethodSpec, Output, Range, Target
from xcam.engine.chunks import default_batch_size
from xcam.engine.clean import bind_clean_pass
from xcam.engine.masking import masked_scores
from xcam.imaging import Fill
from xcam.methods.perturbation.grid_masks import GridMasks

__all__ = ["RISE"]

Estimator = Literal["plain", "centered"]
Sampling = Literal["iid", "balanced"]


@dataclass(frozen=True, eq=False, repr=False)
class RISE(Method):
    """RISE: how high the score is, on average, when a pixel is seen through a random mask.

    S = 1/(N·p) Σ_i f(x ⊙ M_i) M_i (Petsiuk et al., 2018, arXiv:1806.07421). A mask is a grid of
    `cells` × `cells` random bits, enlarged bilinearly to one cell more than the image and cropped
    at a random offset; all images see the same masks. The authors' code applies 1/(N·p) to single
    images and forgets it in batches; here it always is.

    `estimator="centered"` is Cov(f, M) / (p·(1 − p)): the same map in expectation up to a positive
    scale and an offset, without the noise of how often each pixel happened to be seen.
    `sampling="balanced"` turns every cell on in exactly round(N·p) of the masks.

    Attributes:
        cells: Cells a side, at least 2. The authors use 7, 8 and 10.
        probability: p, that a cell is seen. The authors use 0.5 and 0.1.
        n_masks: N. The paper: 4000 for VGG-16, 8000 for ResNet-50.
        seed: Of the masks.
        output: What of the output is f.
        estimator: `"plain"` as published, or `"centered"`.
        sampling: `"iid"` bits as published, or `"balanced"`.
        fill: What is seen where the mask is zero; the paper's is zero of what the model takes.
    """

    cells: Annotated[int, Range(least=2)] = 7
    probability: Annotated[float, Range(above=0, below=1)] = 0.5
    n_masks: Count = 4000
    seed: int = 0
    output: Output = "prob"
    estimator: Estimator = "plain"
    sampling: Sampling = "iid"
    fill: Fill = "zero"

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="rise",
        title="RISE",
        paper="Petsiuk et al., 2018, arXiv:1806.07421",
        family="perturbation",
        cost="1 + n_masks forwards",
        stochastic=True,
    )

    def __post_init__(self) -> None:
        """Refuse a balanced sampling that hides all cells, or none."""
        super().__post_init__()
        if self.sampling == "balanced" and self._count_on() in (0, self.n_masks):
            raise ValueError(
                f"balanced sampling turns a cell on in round(n_masks · probability) = "
                f"{self._count_on()} of {self.n_masks} masks, which hides all cells or none: raise "
                "n_masks, or use sampling='iid'"
            )

    def _count_on(self) -> int:
        """Return in how many masks each cell is on, if balanced."""
        return round(self.n_masks * self.probability)

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, H, W) at the images' size; see `Method.maps`."""
        masks = self.draw(images)
        bind_clean_pass(model, images, target)
        with torch.no_grad():
            return self.estimate(self.scores(model, images, target, masks), masks)

    def draw(self, images: Tensor) -> GridMasks:
        """Draw the masks for images (…, H, W), with their dtype and on their device."""
        generator = torch.Generator().manual_seed(self.seed)
        # A row a mask, the offset at its end: fewer masks of a seed are the first of more.
        numbers = torch.rand(self.n_masks, self.cells**2 + 2, generator=generator)
        bits, offsets = numbers[:, :-2], numbers[:, -2:]
        iid = self.sampling == "iid"
        on = bits < self.probability if iid else bits.argsort(0) < self._count_on()
        grids = on.to(images).view(self.n_masks, self.cells, self.cells)
        return GridMasks(grids, offsets, (images.shape[-2], images.shape[-1]))

    def scores(self, model: nn.Module, images: Tensor, target: Target, masks: GridMasks) -> Tensor:
        """Return the scores (B, N) of images (B, C, H, W) under each mask, for a bound target."""
        batch = len(images)

        def pairs(part: slice) -> tuple[Tensor, Tensor]:
            # Mask after mask, each for all images, so that a chunk makes few of them.
            index = torch.arange(part.start, part.stop, device=images.device)
            first, last = part.start // batch, (part.stop - 1) // batch
            drawn = masks[first : last + 1]
            shared_or_own = len(drawn) in (1, len(index))
            return index % batch, drawn if shared_or_own else drawn[index // batch - first]

        count = batch * len(masks)
        found = masked_scores(model, images, target, count, pairs, self.output, self.fill, "rise")
        return found.view(len(masks), batch).T

    def estimate(self, scores: Tensor, masks: GridMasks) -> Tensor:
        """Estimate the maps (B, H, W) from the scores (B, N) under the first N masks."""
        p, count = self.probability, scores.shape[1]
        if self.estimator == "plain":
            weights = scores / (count * p)
        else:
            weights = (scores - scores.mean(1, keepdim=True)) / (count * p * (1 - p))
        maps = weights.new_zeros(len(weights), *masks.size)
        step = default_batch_size(maps)
        for start in range(0, count, step):
            part = slice(start, min(count, start + step))
            maps += torch.tensordot(weights[:, part], masks[part].to(weights.dtype), 1)
        return maps
