"""Input times gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam import imaging
from xcam.core import Method, MethodSpec, Output, Reduce, Target
from xcam.methods.gradient.input_gradients import compute_clean_gradients

__all__ = ["InputXGradient"]


@dataclass(frozen=True)
class InputXGradient(Method):
    """Input x Gradient: what each pixel adds to the score of the locally linear model.

    M = Σ_c x_c · ∂y/∂x_c (Shrikumar et al., 2016, arXiv:1605.01713). The channels are summed, for
    then the map of a linear model adds up to its score less the bias. A black pixel gets nothing.

    Attributes:
        output: What of the output is y.
        reduce: How the channels become one.
        stretched: White Box's IB instead: the product of gradient and image, each first stretched
            to [0, 1] over all channels and positions. Never negative.
    """

    output: Output = "logit"
    reduce: Reduce = "sum"
    stretched: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="input_x_gradient",
        title="Input x Gradient",
        aliases=("gradient_x_input",),
        paper="Shrikumar et al., 2016, arXiv:1605.01713",
        family="gradient",
        cost="1 forward + backward",
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, C, H, W); see `Method.maps`."""
        gradient = compute_clean_gradients(model, images, target, self.output)
        images = images.detach()
        return _stretch(gradient) * _stretch(images) if self.stretched else gradient * images


def _stretch(values: Tensor) -> Tensor:
    return imaging.normalize(values.flatten(1)[:, None]).view_as(values)
