"""Input Invariance: the map beside that of a shifted image, by a model that undoes the shift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Explanation, Metric, MetricSpec
from xcam.engine import unwrap
from xcam.metrics.explaining import explain_again, read_contrast
from xcam.metrics.inputs import read_maps, read_target, require_method
from xcam.metrics.precision import to_finest
from xcam.models.normalized import Normalized

__all__ = ["InputInvariance", "shift_model"]


@dataclass(frozen=True)
class InputInvariance(Metric):
    """Input Invariance: does the map stay when image and model are shifted alike?

    ‖e(x, f) − e(x + s, f_s)‖ / max(‖e(x, f)‖, ‖e(x + s, f_s)‖), with f_s(x + s) = f(x): the model
    subtracts the shift, as it would by other biases in its first layer, and computes the same
    (Kindermans et al., 2017, arXiv:1711.00867). In [0, 2], lower is better, 0 for maps that are the
    same. The paper shows pictures; Quantus counts the images of which no element differs by 1e-4,
    but its version 0.6 leaves the first element without the shift.
    What is compared are signed `Explanation.maps`, one value a pixel. Gradients are invariant;
    what multiplies them by the image, or hides pixels by a fixed value, is not.

    Attributes:
        shift: s, added to all elements of the image. Published: −1.
    """

    shift: float = -1.0

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="input_invariance",
        title="Input Invariance",
        paper="Kindermans et al., 2017, arXiv:1711.00867",
        formula="mean of ‖e(x, f) − e(x + s, f_s)‖ / max(‖e(x, f)‖, ‖e(x + s, f_s)‖)",
        higher_is_better=False,
        bounds=(0.0, 2.0),
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
        """Return (B,) distances; see `Metric.score`."""
        maps, target = read_maps(explanation, images), read_target(explanation, images)
        method, contrast = (
            require_method(explanation, self.spec.name),
            read_contrast(explanation, images),
        )
        with torch.inference_mode(False):  # the caller's own would forbid gradients
            shifted = shift_model(model, self.shift)
        again = explain_again(shifted, images + self.shift, method, target, contrast)
        a, b = (to_finest(each.flatten(1)) for each in (maps, again))
        largest = a.norm(dim=1).maximum(b.norm(dim=1))
        distance: Tensor = (a - b).norm(dim=1) / largest.where(largest > 0, 1)
        return distance.float()


def shift_model(model: nn.Module, shift: float) -> Normalized:
    """Return a model that gives for images + shift what the given one, inside, gives for images."""
    net = unwrap(model)
    if not isinstance(net, Normalized):
        return Normalized(net, [shift], [1.0])
    mean, std = net.mean.flatten().tolist(), net.std.flatten().tolist()
    return Normalized(net.model, [each + shift for each in mean], std, input_size=net.input_size)
