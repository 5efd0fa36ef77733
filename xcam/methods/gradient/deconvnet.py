"""DeconvNet."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Output, Reduce, Target
from xcam.methods.gradient.relu_rules import rectified_gradients
from xcam.methods.postprocessing import WHITE_BOX_PIXELS, stretch_elements

__all__ = ["DeconvNet"]


@dataclass(frozen=True)
class DeconvNet(Method):
    """DeconvNet: the score sent back to the image, rectified on its way at the ReLUs.

    A ReLU passes R_in = 1[R_out > 0] · R_out back, whatever its input was (Zeiler and Fergus,
    2013, arXiv:1311.2901, as a backward rule: Springenberg et al., 2014). What counts as a ReLU is
    said at `guided_backprop`; ReLU6's upper bound keeps its gradient. White Box's deconvolution net
    has random weights and ignores the class; not reproduced.

    Attributes:
        output: What of the output is sent back.
        reduce: How the channels become one.
        within: Name of the module whose ReLUs are changed; None for all.
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
        name="deconvnet",
        title="DeconvNet",
        aliases=("deconvolution",),
        paper="Zeiler and Fergus, 2013, arXiv:1311.2901",
        family="gradient",
        cost="1 forward + backward",
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, signed (B, C, H, W); see `Method.maps`."""
        gradient = rectified_gradients(model, images, target, "deconvnet", self.output, self.within)
        return stretch_elements(gradient) if self.stretched else gradient
