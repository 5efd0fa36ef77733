"""Guided Grad-CAM."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam import imaging
from xcam.core import Method, MethodSpec, Output, Reduce, Target
from xcam.engine import Layer
from xcam.methods.cam.gradcam import GradCAM
from xcam.methods.gradient.relu_rules import rectified_gradients
from xcam.methods.postprocessing import WHITE_BOX_PIXELS, render, stretch_elements

__all__ = ["GuidedGradCAM"]


@dataclass(frozen=True)
class GuidedGradCAM(Method):
    """Guided Grad-CAM: Guided Backpropagation, seen through Grad-CAM.

    M = up(ReLU(Grad-CAM)) ⊙ GuidedBackprop (Selvaraju et al., 2017, arXiv:1610.02391). The CAM is
    resized bilinearly, as published; captum's default is nearest neighbor. White Box's GB-GC
    multiplies maps that were each stretched to [0, 1], so that a gradient of zero is gray, and
    reads the last convolution itself (`layer="features.8"` of its nets): `preset="whitebox"`. What
    counts as a ReLU is said at `guided_backprop`.

    Attributes:
        layer: Of Grad-CAM: name or module; None for the model's default layer.
        output: What of the output is explained, by both.
        reduce: How the channels become one.
        within: Name of the module whose ReLUs are guided; None for all.
        stretched: White Box's GB-GC instead: the gray picture of Grad-CAM (its `rendering`) times
            Guided Backpropagation, scaled into [0, 1] over all channels and positions, and so is
            the product. Never negative.
        preset: `"whitebox"` sets within="features", output="prob", reduce="sum" and stretched=True.
    """

    layer: Layer | None = None
    output: Output = "logit"
    reduce: Reduce = "abs_max"
    within: str | None = None
    stretched: bool = False
    preset: InitVar[str | None] = None

    presets: ClassVar = {"whitebox": {"within": "features", **WHITE_BOX_PIXELS}}
    spec: ClassVar[MethodSpec] = MethodSpec(
        name="guided_gradcam",
        title="Guided Grad-CAM",
        paper="Selvaraju et al., 2017, arXiv:1610.02391",
        family="gradient",
        cost="2 forwards + backward + tail backward",
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, signed (B, C, H, W); see `Method.maps`."""
        cam = GradCAM(self.layer, self.output, relu=True).maps(model, images, target)
        guided = rectified_gradients(model, images, target, "guided", self.output, self.within)
        size = images.shape[2], images.shape[3]
        if not self.stretched:
            return imaging.resize(cam, size)[:, None] * guided
        return stretch_elements(render(cam, size, "gray")[:, None] * stretch_elements(guided))
