"""Guided Backpropagation."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Output, Reduce, Target
from xcam.methods.gradient.relu_rules import rectified_gradients
from xcam.methods.postprocessing import WHITE_BOX_PIXELS, stretch_elements

__all__ = ["GuidedBackprop"]


@dataclass(frozen=True)
class GuidedBackprop(Method):
    """Guided Backpropagation: the gradient, with what is negative cut at the ReLUs.

    A ReLU passes R_in = 1[x > 0] · 1[R_out > 0] · R_out back (Springenberg et al., 2014,
    arXiv:1412.6806). ReLU and ReLU6 count, module or function, in place or not; what rectifies by
    another name (`clamp(min=0)`, `torch.maximum`, LeakyReLU, Threshold), GELU, SiLU and the like
    keep their gradient. A model without ReLUs gives a warning, a scripted one is refused. captum
    changes `nn.ReLU` modules only, and another branch that reads a ReLU's input as well.
    White Box leaves the classifier's ReLU alone and stretches the map: `preset="whitebox"`.

    Attributes:
        output: What of the output is differentiated.
        reduce: How the channels become one.
        within: Name of the module whose ReLUs are guided; None for all.
        stretched: Whether to scale each map into [0, 1] over all channels and positions, as White
            Box does: a gradient of zero becomes gray.
        preset: `"whitebox"` sets within="features", output="prob", reduce="sum" and stretched=True.
    """

    output: Output = "logit"
    reduce: Reduce = "abs_max"
    within: str | None = None
    stretched: bool = False
    preset: InitVar[str | None] = None

    presets: ClassVar = {"whitebox": {"within": "features", **WHITE_BOX_PIXELS}}
    spec: ClassVar[MethodSpec] = MethodSpec(
        name="guided_backprop",
        title="Guided Backpropagation",
        aliases=("guided_backpropagation",),
        paper="Springenberg et al., 2014, arXiv:1412.6806",
        family="gradient",
        cost="1 forward + backward",
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, signed (B, C, H, W); see `Method.maps`."""
        gradient = rectified_gradients(model, images, target, "guided", self.output, self.within)
        return stretch_elements(gradient) if self.stretched else gradient
