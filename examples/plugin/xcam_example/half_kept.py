"""Half kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam import Explanation, Metric, MetricSpec
from xcam.core import Output
from xcam.engine import forward, untouched
from xcam.engine.chunks import chunks
from xcam.engine.masking import masked_scores
from xcam.metrics.inputs import read_maps, read_target

__all__ = ["HalfKept"]


@dataclass(frozen=True)
class HalfKept(Metric):
    """Half kept: the score of the half that the map points at, less that of the other half.

    f(x ⊙ top half) − f(x ⊙ bottom half), where the halves are the pixels above and below the map's
    median. Higher is better; a flat map has 0, since its halves are empty and all.

    Attributes:
        output: What of the output is f.
    """

    output: Output = "prob"

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="half_kept",
        title="Half kept",
        paper="xcam's example of a plugin",
        formula="f(x ⊙ top half) − f(x ⊙ bottom half)",
        higher_is_better=True,
        bounds=(-1.0, 1.0),
        cost="3",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) differences; see `Metric.score`."""
        maps, target = read_maps(explanation, images), read_target(explanation, images)
        top = maps > maps.flatten(1).median(1).values[:, None, None]
        masks = torch.stack([top, ~top], 1).float()  # (B, 2, H, W)

        def make_masks(part: slice) -> tuple[Tensor, Tensor]:
            pairs = torch.arange(part.start, part.stop, device=images.device)
            return pairs // 2, masks[pairs // 2, pairs % 2]

        with untouched(model), torch.no_grad():
            for part, output in chunks(
                len(images), lambda part: forward.call(model, images[part]), images
            ):
                target.select(part).bind(output)  # refuses a class that the model lacks
            scores = masked_scores(model, images, target, 2 * len(images), make_masks, self.output)
        return scores.view(-1, 2) @ scores.new_tensor([1.0, -1.0])
