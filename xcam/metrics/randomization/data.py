"""Data Randomization: the map beside that of the same net trained on permuted labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Explanation, Method, Metric, MetricSpec, Target
from xcam.engine import unwrap
from xcam.engine.shared import keep_nothing, shareable
from xcam.metrics.explaining import explain_again, read_contrast
from xcam.metrics.inputs import read_maps, read_target, require_method
from xcam.metrics.randomization.layers import duplicate
from xcam.metrics.similarity import Similarity, compare_maps
from xcam.models.state_dicts import load_state

__all__ = ["DataRandomization"]


@dataclass(frozen=True, repr=False)
class DataRandomization(Metric):
    """Data Randomization Test: does the map change when the net has learned noise instead?

    s(e(f), e(f′)), with e the method that made the maps, for the class that was explained, and f′
    the same net with weights that were trained on permuted labels, until it knew them by heart
    (Adebayo et al., 2018, arXiv:1810.03292). In [−1, 1], lower is better: a method that gives 1
    does not explain what was learned. What is compared are `Explanation.maps`, one value a pixel.
    It needs a second training, so that it is not in the registry, and has no name there::

        labels = torch.tensor([label for _, label in train])
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        permuted = xcam.data.relabel(train, labels[order])
        xcam.fit(make_net(), permuted, epochs=200, out="runs/permuted")
        metric = xcam.metrics.DataRandomization("runs/permuted/last.safetensors")
        xcam.evaluate(net, test, ["gradcam", "guided_backprop"], {"data_randomization": metric})

    Attributes:
        weights: The file of the weights of f′, as `xcam.fit` and `xcam.save` write it, or any state
            dict of the net. What an evaluation in `out` knows it by is its content.
        similarity: `"spearman"`, the rank correlation over pixels, or `"ssim"`, as in `MPRT`.
        absolute: Whether magnitudes are compared.
    """

    weights: str | Path | None = None
    similarity: Similarity = "spearman"
    absolute: bool = True

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="data_randomization",
        title="Data Randomization",
        paper="Adebayo et al., 2018, arXiv:1810.03292",
        formula="mean of s(e(f), e(f′)), f′ trained on permuted labels",
        higher_is_better=False,
        bounds=(-1.0, 1.0),
        question="sanity",
        cost="1 explanation",
    )

    def __post_init__(self) -> None:
        """Make a path of the file's name, so that its content is part of the settings."""
        super().__post_init__()
        if self.weights is not None:
            object.__setattr__(self, "weights", Path(self.weights))

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) similarities; see `Metric.score`.

        Raises:
            ValueError: No weights are given, or the method is not at hand.
            FileNotFoundError: There is no such file.
            FileFormatError: It does not hold the weights of this net.
            ModelOutputError: The model cannot be copied.
        """
        if self.weights is None:
            raise ValueError(
                "data_randomization needs the weights of the net that was trained on permuted "
                "labels: give their file, DataRandomization(weights='permuted.safetensors')"
            )
        maps, target = read_maps(explanation, images), read_target(explanation, images)
        method = require_method(explanation, self.spec.name)
        contrast = read_contrast(explanation, images)
        again = _explain_with(model, str(self.weights), images, method, target, contrast)
        return compare_maps(maps, again, self.similarity, self.absolute)


@shareable
def _explain_with(
    model: nn.Module,
    weights: str,
    images: Tensor,
    method: Method,
    target: Target,
    contrast: Target | None,
) -> Tensor:
    """Return the maps (B, H, W) of images by the model with the weights in a file."""
    # Also under the caller's inference mode.
    with torch.inference_mode(False), torch.no_grad():
        net = duplicate(unwrap(model), torch.clone)
        load_state(net, Path(weights))
    with keep_nothing():  # since nobody else explains this copy
        return explain_again(net, images, method, target, contrast)
