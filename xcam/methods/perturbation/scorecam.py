"""Score-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.core import MethodSpec, Output, Target
from xcam.engine import Layer
from xcam.engine.masking import masked_scores
from xcam.imaging import Fill, normalize
from xcam.methods.cam.channels import ChannelMethod
from xcam.methods.cam.features import capture_activations, weight_channels

__all__ = ["ScoreCAM", "find_varying_channels"]

Weighting = Literal["prob", "softmax_logit", "cic"]


@dataclass(frozen=True, eq=False, repr=False)
class ScoreCAM(ChannelMethod):
    """Score-CAM: a layer's channels, weighted by the score of the image seen through each.

    M = Σ_k w_k A_k with w_k from f(x ⊙ H_k), H_k the channel enlarged and min-maxed (Wang et al.,
    2020, arXiv:1910.01279). A flat channel is no mask: its weight is 0 and no pass is spent on it.
    Enlarging is linear, so combining the channels at the image's size (the authors) or at the
    layer's (grad-cam, torchcam) is the same map. The paper's final ReLU is left to `relu`, which
    cuts the map at the layer's size, and with `enlarged` at the image's, as the authors do. The two
    differ only for a layer with negative values.

    The authors' code is the default with `relu=True, enlarged=True`. grad-cam:
    `weighting="softmax_logit", align_corners=True`. torchcam: `weighting="softmax_logit",
    normalize="before"`; the clean image's logit, which it subtracts, cancels in the softmax. Both
    leave flat channels in the softmax, which scales a map of rectified channels and changes nothing
    else.

    Attributes:
        layer: Name or module; None for the model's default layer.
        weighting: `"prob"`, w_k is the class's probability; `"softmax_logit"`, its logit under a
            softmax over the channels; `"cic"`, the paper's increase of confidence, the probability
            less that of the wholly masked image, which takes one more pass. A target that is a
            callable scores for itself in all three.
        normalize: Min-max `"after"` enlarging to the image's size, or `"before"`.
        align_corners: Enlarges corner pixels onto corner pixels.
        fill: What is seen where the mask is zero; published: zero of what the model takes.
        relu: Whether to cut the map at zero, as published.
        enlarged: Whether the map is enlarged before `relu` cuts it, as the masks are.
    """

    layer: Layer | None = None
    weighting: Weighting = "prob"
    normalize: Literal["after", "before"] = "after"
    align_corners: bool = False
    fill: Fill = "zero"
    relu: bool = False
    enlarged: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="scorecam",
        title="Score-CAM",
        paper="Wang et al., 2020, arXiv:1910.01279",
        family="perturbation",
        cost="1 + C forwards, flat channels skipped",
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, h, w) at the layer's size, or enlarged; see `Method.maps`."""
        maps = self.channels(model, images, target).sum(1)
        maps = self._enlarge(maps, images) if self.enlarged else maps
        return maps.relu() if self.relu else maps

    def channels(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return the weighted channels, (B, C, h, w); see `ChannelMethod`."""
        activation = capture_activations(model, images, target, self.layer)
        alive = find_varying_channels(activation)
        pairs = alive.nonzero()  # (R, 2): image, channel

        def masks(part: slice) -> tuple[Tensor, Tensor]:
            rows, channels = pairs[part].unbind(1)
            return rows, self._masks(activation[rows, channels], images)

        output: Output = "logit" if self.weighting == "softmax_logit" else "prob"
        scores = masked_scores(
            model, images, target, len(pairs), masks, output, self.fill, "scorecam"
        )
        filled_in = scores.new_zeros(alive.shape).masked_scatter(alive, scores)
        if self.weighting == "cic":
            filled_in = filled_in - self._hidden_scores(model, images, target)[:, None]
        if self.weighting == "softmax_logit":
            filled_in = filled_in.masked_fill(~alive, -torch.inf).softmax(1)
        return weight_channels(activation, torch.where(alive, filled_in, 0))

    def _masks(self, channels: Tensor, images: Tensor) -> Tensor:
        low = normalize(channels) if self.normalize == "before" else channels
        enlarged = self._enlarge(low, images)
        return normalize(enlarged) if self.normalize == "after" else enlarged

    def _enlarge(self, maps: Tensor, images: Tensor) -> Tensor:
        size = (images.shape[2], images.shape[3])
        return F.interpolate(
            maps[:, None], size, mode="bilinear", align_corners=self.align_corners
        )[:, 0]

    def _hidden_scores(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        def masks(part: slice) -> tuple[Tensor, Tensor]:
            rows = torch.arange(part.start, part.stop, device=images.device)
            return rows, images.new_zeros(1, *images.shape[2:])

        return masked_scores(model, images, target, len(images), masks, "prob", self.fill)


def find_varying_channels(activation: Tensor) -> Tensor:
    """Return which channels of (B, C, h, w) vary by more than rounding, (B, C) bool."""
    lowest, highest = activation.flatten(2).aminmax(dim=2)
    return highest - lowest > 1e-6 * torch.maximum(lowest.abs(), highest.abs())
