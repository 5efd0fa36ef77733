"""Agreement: the map beside that of another method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from xcam._explain.prepared import prepare
from xcam.core import Explanation, Method, Metric, MetricSpec, Share
from xcam.metrics.explaining import explain_again, read_contrast
from xcam.metrics.inputs import read_maps, read_target
from xcam.metrics.similarity import compare_maps, measure_overlap

__all__ = ["Agreement"]


@dataclass(frozen=True)
class Agreement(Metric):
    """Agreement: how similar the map is to that of a reference method, for the same class.

    s(e(x), r(x)), with r the reference: Spearman's rank correlation over pixels, SSIM, or the share
    of the highest pixels that both have (Krishna et al., 2022, arXiv:2202.01602, who call these
    rank correlation and feature agreement). Neither direction is better: two methods may agree and
    both be wrong. In [−1, 1]. Several references, given by labels to `xcam.evaluate`, make the
    table of every method beside every other; maps from anywhere can be compared.

    Attributes:
        reference: The other method: its name, or a method object.
        similarity: `"spearman"`, `"ssim"` as in `MPRT`, or `"overlap"`, |top(e) ∩ top(r)| / k.
        absolute: Whether magnitudes are compared.
        top: For the overlap, k as a share of the pixels.
    """

    reference: str | Method = "gradcam"
    similarity: Literal["spearman", "ssim", "overlap"] = "spearman"
    absolute: bool = False
    top: Share = 0.1

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="agreement",
        title="Agreement",
        paper="Krishna et al., 2022, arXiv:2202.01602",
        formula="mean of s(e(x), r(x)), r a reference method",
        higher_is_better=None,
        bounds=(-1.0, 1.0),
        question="shape",
        cost="1 explanation",
    )

    def __post_init__(self) -> None:
        """Refuse a reference that is no method."""
        super().__post_init__()
        if not isinstance(self.reference, str | Method):
            raise TypeError(
                "agreement: reference must be the name of a method or a method object, such as "
                f"'gradcam', got {self.reference!r}"
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
            UnknownNameError: There is no such reference.
            ValueError: The map has a contrast, and the reference knows no class.
        """
        is_overlap = self.similarity == "overlap"
        maps = read_maps(explanation, images, order=is_overlap)
        target, contrast = read_target(explanation, images), read_contrast(explanation, images)
        if contrast is not None:
            reference = prepare(model, images, self.reference).method
            if not reference.spec.class_specific:
                raise ValueError(
                    "the maps are those of a contrast, and the reference of agreement, "
                    f"{reference.spec.name}, gives the same map for every class; give a reference "
                    "that is class-specific, such as 'gradcam'"
                )
        again = explain_again(model, images, self.reference, target, contrast)
        if self.similarity != "overlap":
            return compare_maps(maps, again, self.similarity, self.absolute)
        if self.absolute:
            maps, again = maps.abs(), again.abs()
        return measure_overlap(maps, again, self.top)
