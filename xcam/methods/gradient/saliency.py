"""Saliency: vanilla backpropagation."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Output, Reduce, Target
from xcam.methods.gradient.input_gradients import compute_clean_gradients
from xcam.methods.postprocessing import WHITE_BOX_PIXELS, stretch_elements
from xcam.models.normalized import Space, enter_space

__all__ = ["Saliency"]


@dataclass(frozen=True)
class Saliency(Method):
    """Saliency (vanilla backpropagation): the gradient of the score at the image.

    M = max_c |∂y/∂x_c| (Simonyan et al., 2013, arXiv:1312.6034). White Box's VBP ranks
    signed gradients of the probability, stretched to [0, 1]: `preset="whitebox"`.

    Attributes:
        output: What of the output is y.
        reduce: How the channels become one; `"abs_max"` as published.
        stretched: Whether to scale each map into [0, 1] over all channels and positions, as White
            Box does: a gradient of zero becomes gray.
        space: Where the gradient is taken: at the images as they are given, or as the model
            normalized them. The two differ by the deviation of each channel.
        preset: `"whitebox"` sets output="prob", reduce="sum" and stretched=True. `"calm"` sets what
            CALM's published code has: output="logit", reduce="abs_max" and space="normalized".
    """

    output: Output = "logit"
    reduce: Reduce = "abs_max"
    stretched: bool = False
    space: Space = "input"
    preset: InitVar[str | None] = None

    presets: ClassVar = {
        "whitebox": WHITE_BOX_PIXELS,
        "calm": {"output": "logit", "reduce": "abs_max", "space": "normalized"},
    }
    spec: ClassVar[MethodSpec] = MethodSpec(
        name="saliency",
        title="Saliency",
        aliases=("gradient", "vanilla_gradient"),
        paper="Simonyan et al., 2013, arXiv:1312.6034",
        family="gradient",
        cost="1 forward + backward",
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, the gradient, (B, C, H, W); see `Method.maps`."""
        net, shown = enter_space(model, images, self.space)
        gradient = compute_clean_gradients(net, shown, target, self.output)
        return stretch_elements(gradient) if self.stretched else gradient
