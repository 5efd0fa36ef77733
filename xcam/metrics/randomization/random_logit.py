"""Random Logit: the map of the class beside that of another class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Explanation, Metric, MetricSpec, Range, Target
from xcam.engine import untouched
from xcam.engine.clean import clean_logits
from xcam.imaging import hash_images
from xcam.metrics.explaining import explain_again, read_contrast
from xcam.metrics.inputs import read_maps, read_target, require_method
from xcam.metrics.similarity import Similarity, compare_maps
from xcam.sentences import pluralize

__all__ = ["RandomLogit"]


@dataclass(frozen=True)
class RandomLogit(Metric):
    """Random Logit: how similar the map of the class is to that of another, random class.

    s(e(x, c), e(x, c′)), with e the method that made the maps, c the class that was explained, and
    c′ one of the others, drawn for each image from the seed and a hash of its pixels (Sixt et al.,
    2020, arXiv:1912.09818). In [−1, 1], lower is better: a method that gives 1 does not explain a
    class. What is compared are signed `Explanation.maps`, one value a pixel, for SSIM divided by
    their largest magnitude. Quantus takes the SSIM of the flattened map, in windows of 7 pixels of
    a line, with its channels, and draws the classes of a batch from one generator; its rank
    correlation is that of `similarity="spearman"`.

    Attributes:
        similarity: `"ssim"`, the structural similarity in windows of 7 pixels, or `"spearman"`, the
            rank correlation over pixels.
        absolute: Whether magnitudes are compared.
        seed: Of the other class, beside the image.
    """

    similarity: Similarity = "ssim"
    absolute: bool = False
    seed: Annotated[int, Range(least=0)] = 0

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="random_logit",
        title="Random Logit",
        paper="Sixt et al., 2020, arXiv:1912.09818",
        formula="mean of s(e(x, c), e(x, c′)), c′ another class",
        higher_is_better=False,
        bounds=(-1.0, 1.0),
        question="sanity",
        cost="1 explanation",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) similarities; see `Metric.score`.

        Raises:
            ValueError: The model has no other class, or the method is not at hand.
        """
        maps = read_maps(explanation, images)
        read_target(explanation, images)  # refuses maps of no class
        method = require_method(explanation, self.spec.name)
        contrast = read_contrast(explanation, images)
        others = draw_other_classes(model, images, explanation, self.seed)
        again = explain_again(model, images, method, Target.of(others, images), contrast)
        return compare_maps(maps, again, self.similarity, self.absolute)


def draw_other_classes(
    model: nn.Module, images: Tensor, explanation: Explanation, seed: int
) -> list[int]:
    """Draw a class for each image, none that was explained or contrasted, from its pixels.

    Raises:
        ValueError: There is none.
    """
    logits = explanation.logits
    if logits is None:
        with untouched(model):
            logits = clean_logits(model, images, "classes")
    known = [one for one in (explanation.target, explanation.contrast) if one is not None]
    taken = [sorted({*classes}) for classes in torch.stack(known, 1).tolist()]
    count = logits.shape[1] - len(known)
    if count < 1:
        raise ValueError(
            "random_logit explains another class, and the model has "
            f"{pluralize(logits.shape[1], 'class')}; leave it out"
        )
    drawn = []
    for state, classes in zip(hash_images(images, seed), taken, strict=True):
        other = state % count
        for one in classes:
            other += other >= one
        drawn.append(other)
    return drawn
