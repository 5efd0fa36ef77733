"""Input times gradient."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Output, Reduce, Target
from xcam.methods.gradient.input_gradients import compute_clean_gradients
from xcam.methods.postprocessing import WHITE_BOX_PIXELS, stretch_elements

__all__ = ["InputXGradient"]


@dataclass(frozen=True)
class InputXGradient(Method):
    """Input x Gradient: what each pixel adds to the score of the locally linear model.

    M = Σ_c x_c · ∂y/∂x_c (Shrikumar et al., 2016, arXiv:1605.01713). The channels are summed, for
    then the map of a linear model adds up to its score less the bias. A black pixel gets nothing.

    Attributes:
        output: What of the output is y.
        reduce: How the channels become one.
        stretched: White Box's IB instead: the product of gradient and image, each first scaled
            into [0, 1] over all channels and positions, and so is the product. Never negative.
        preset: `"whitebox"` sets output="prob", reduce="sum" and stretched=True.
    """

    output: Output = "logit"
    reduce: Reduce = "sum"
    stretched: bool = False
    preset: InitVar[str | None] = None

    presets: ClassVar = {"whitebox": WHITE_BOX_PIXELS}
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
        if not self.stretched:
            return gradient * images
        return stretch_elements(stretch_elements(gradient) * stretch_elements(images))
