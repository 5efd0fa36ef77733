"""Ablation-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.core import MethodSpec, Output, Target
from xcam.engine import Layer, capture, replace_output
from xcam.engine.chunks import collect
from xcam.engine.layout import require_layout
from xcam.methods.cam.channels import ChannelMethod
from xcam.methods.cam.features import read, require_layer, weight_channels

__all__ = ["AblationCAM"]


@dataclass(frozen=True)
class AblationCAM(ChannelMethod):
    """Ablation-CAM: a layer's channels, weighted by how far the score falls without each.

    M = Σ_k w_k A_k with w_k = (y − y_k)/|y|, where y_k is the score with channel k ablated (Desai
    and Ramaswamy, WACV 2020). The paper divides by y, which turns the map's sign for a negative
    score; |y| does not. A channel that ablation leaves as it is has weight 0 and takes no pass. The
    class token of a transformer is not ablated. The paper's final ReLU is left to `relu`.

    grad-cam ablates to zero only if the layer's least value is exactly 0, and elsewhere (GELU,
    SiLU, before a ReLU) sets the channel to that value less 1e7; here it is zero, or the mean.

    Attributes:
        layer: Name or module; None for the model's default layer.
        ablate: What a channel becomes: `"zero"` as published, or its own `"mean"` over the image.
        output: What of the output is y.
        relu: Whether to cut the map at zero, as published.
    """

    layer: Layer | None = None
    ablate: Literal["zero", "mean"] = "zero"
    output: Output = "logit"
    relu: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="ablationcam",
        title="Ablation-CAM",
        paper="Desai and Ramaswamy, WACV 2020",
        family="perturbation",
        cost="2 + C forwards, dead channels skipped",
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, h, w) at the layer's size; see `Method.maps`."""
        maps = self.channels(model, images, target).sum(1)
        return maps.relu() if self.relu else maps

    def channels(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return the weighted channels, (B, C, h, w); see `ChannelMethod`."""
        with capture(model, require_layer(self.layer), grad=False) as tap:
            target.bind(tap(images))
            activation = read(tap.activation, images, model, self.layer)
        live = (activation != self._ablated(activation)).flatten(2).any(2)
        # Channel −1 is none. The falls are so small that y must round as the y_k do, so that it
        # has its own pass among theirs: the clean pass, of another batch size, rounds otherwise.
        passed = F.pad(live, (1, 0), value=True)
        pairs = passed.nonzero() - torch.tensor([0, 1], device=live.device)
        rows, _ = pairs.unbind(1)
        scores = self._ablated_scores(model, images, target, pairs, tap.call)
        counts = passed.sum(1)
        clean = scores[counts.cumsum(0) - counts]  # the first of each image
        fall = (clean[rows] - scores) / (clean[rows].abs() + torch.finfo(scores.dtype).eps)
        weights = fall.new_zeros(passed.shape).masked_scatter(passed, fall)[:, 1:]
        return weight_channels(activation, weights)

    def _ablated(self, channels: Tensor) -> Tensor:
        if self.ablate == "mean":
            return channels.mean((-2, -1), keepdim=True)
        return channels.new_zeros(())

    def _ablated_scores(
        self, model: nn.Module, images: Tensor, target: Target, pairs: Tensor, read: int
    ) -> Tensor:
        """Return the scores (R,) with one channel ablated, for (R, 2) pairs of image, channel."""
        rows, channels = pairs[:0].unbind(1)
        call = -1

        def ablate(output: Tensor) -> Tensor:
            nonlocal call
            call += 1
            if call != read:  # the map is of one of the layer's calls
                return output
            changed = output.clone()
            one_each = images[:1].expand(len(rows), -1, -1, -1)
            view = require_layout(changed, one_each, model, self.layer).channels(changed)
            each = torch.arange(len(rows), device=rows.device)
            kept = view[each, channels]
            none = (channels < 0)[:, None, None]
            view[each, channels] = torch.where(none, kept, self._ablated(kept))
            return changed

        with replace_output(model, require_layer(self.layer), ablate) as run:

            def step(part: slice) -> Tensor:
                nonlocal rows, channels, call
                call, (rows, channels) = -1, pairs[part].unbind(1)
                return target.scores(run(images[rows]), rows, output=self.output)

            return collect(len(pairs), step, images, "ablationcam")
