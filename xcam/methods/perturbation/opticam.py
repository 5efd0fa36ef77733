"""Opti-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from xcam.core import Count, Method, MethodSpec, Output, Positive, Target
from xcam.engine import Layer, eager, forward, gradients
from xcam.engine.masking import blend
from xcam.imaging import Fill, normalize, resize
from xcam.methods.cam.features import capture_activations_and_scores, weight_channels
from xcam.methods.gradient.input_gradients import differentiate_sum

__all__ = ["OptiCAM"]


@dataclass(frozen=True, eq=False, repr=False)
class OptiCAM(Method):
    """Opti-CAM: the mixture of a layer's channels through which the image scores highest.

    M = n(up(Σ_k α_k A_k)) with α = softmax(u), and u maximizing f(x ⊙ M) by Adam from α_k = 1/K
    (Zhang et al., 2023, arXiv:2301.07002). The channels are those of the clean image. Defaults are
    those of the authors' demonstration; their class has 100 iterations, a rate of 0.01 and
    `loss="norm"`. Their code cuts the channels at zero first: `rectify=True`, which makes another
    map at layers with negative values (the default layers of DenseNet, ConvNeXt, ViT and Swin) and
    the same elsewhere. They stop early by the sum over a batch and return the last map; here each
    image keeps the best of its own `iterations` maps, the uniform mixture among them. A map that is
    flat becomes zeros.

    Images go through the model one at a time whatever `batch_size`: Adam steps as far for a small
    gradient as for a large one, so that the rounding in which batch sizes differ can grow to tenths
    of the map's range. For the same reason two machines may give visibly different maps.

    Attributes:
        layer: Name or module; None for the model's default layer.
        iterations: How many maps are tried, a forward and a backward pass each.
        rate: Adam's learning rate.
        loss: `"plain"` raises f(x ⊙ M); `"norm"` brings it near the clean f(x), from either side.
        normalize: n: `"minmax"`, division by the `"max"` (after cutting at zero), or `"sigmoid"`.
        output: What of the output is f.
        fill: What is seen where the mask is zero; published: zero of what the model takes.
        rectify: Whether to cut the channels at zero first, as the authors' code does.
    """

    layer: Layer | None = None
    iterations: Count = 50
    rate: Positive = 0.1
    loss: Literal["plain", "norm"] = "plain"
    normalize: Literal["minmax", "max", "sigmoid"] = "minmax"
    output: Output = "logit"
    fill: Fill = "zero"
    rectify: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="opticam",
        title="Opti-CAM",
        paper="Zhang et al., 2023, arXiv:2301.07002",
        family="perturbation",
        cost="1 forward + iterations × (forward + backward)",
        signed=False,
        normalized=True,
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, H, W) at the images' size; see `Method.maps`."""
        single_targets = [target.select(slice(i, i + 1)) for i in range(len(images))]
        maps = [
            self._best(model, image[None], single)
            for image, single in zip(images, single_targets, strict=True)
        ]
        logits = [single.logits for single in single_targets if single.logits is not None]
        if len(logits) == len(images):
            target.bind(torch.cat(logits))
        return torch.cat(maps)

    def _best(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return the best map (1, H, W) of one image (1, C, H, W)."""
        channels, clean = capture_activations_and_scores(
            model, images, target, self.layer, self.output
        )
        if self.rectify:
            channels = channels.relu()
        with gradients(model), eager():
            # Copies, since what was made under inference_mode cannot be saved for a backward pass.
            images, channels, clean = images.detach().clone(), channels.clone(), clean.clone()
            mixture = torch.full_like(channels[:, :, 0, 0], 0.5).requires_grad_()
            adam = torch.optim.Adam([mixture], lr=self.rate)
            best = torch.full_like(clean, -torch.inf)
            best_maps = images.new_zeros(len(images), *images.shape[2:])
            for _ in range(self.iterations):
                maps = self._map(mixture, channels, images)
                prediction = forward.call(model, blend(images, maps, self.fill))
                gain = self._gain(target.scores(prediction, output=self.output), clean)
                better = gain > best
                best = torch.where(better, gain, best).detach()
                best_maps = torch.where(better[:, None, None], maps, best_maps).detach()
                mixture.grad = differentiate_sum(-gain, mixture)
                adam.step()
            return best_maps

    def _map(self, mixture: Tensor, channels: Tensor, images: Tensor) -> Tensor:
        """Return the maps (B, H, W) in [0, 1] of mixtures given by their logits (B, K)."""
        size = (images.shape[2], images.shape[3])
        maps = resize(weight_channels(channels, mixture.softmax(1)).sum(1), size)
        if self.normalize == "minmax":
            return normalize(maps)
        if self.normalize == "sigmoid":
            return maps.sigmoid()
        positive = maps.relu()
        highest = positive.amax((1, 2), keepdim=True)
        return positive / highest.where(highest > 0, 1)

    def _gain(self, scores: Tensor, clean: Tensor) -> Tensor:
        return scores if self.loss == "plain" else -(clean - scores).abs()
