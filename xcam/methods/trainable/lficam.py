"""LFI-CAM: a classifier that attends to its features by their learned importance."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.core import (
    Headed,
    MethodSpec,
    Target,
    TrainableMethod,
    compute_class_loss,
    extract_logits,
)
from xcam.engine import Layer
from xcam.errors import LayerError
from xcam.methods.trainable.backbone import Backbone
from xcam.methods.trainable.heads import check_same_head, read_head
from xcam.methods.trainable.taps import Place, check_map, tapped
from xcam.models.cifar.stages import conv

__all__ = ["LFICAM"]

Rectified = Literal["every", "alternate"]


@dataclass(frozen=True)
class LFICAM(TrainableMethod):
    """LFI-CAM: attention by a sum of the features with learned weights.

    A network (FIN) looks at the image through each channel of the last features F and gives its
    importance w (Lee et al., 2021, arXiv:2105.00937). With g the mean of the normalised image's
    channels, scaled down to the features' size, and s_k = F_k brought to [0, 1] over its positions:

        w = softmax_k(mean_ij FIN(s · g))
        R = ReLU(Σ_k w_k F_k)
        A = (R − min R) / (max R − min R)

    The classifier goes on with F (1 + A); all of it is trained with the cross-entropy, and A is the
    map, of whatever class: `target` is accepted and makes no difference. FIN is four times 3x3
    convolution and batch norm, as wide as F: 2.36 M parameters for 256 channels, 9.44 M for 512 and
    151 M for 2048, more than the ResNet-50 around it.

    Channels and maps without range are not divided by it, so that they have finite gradients: s_k
    is then 1, and A is R, which may exceed 1. Where F_k is exactly 0, s_k is 0. These are the
    values of the published code, which divides 0 by 0 there and replaces the result. A range of at
    most 1.1e-19 (1.5e-154 in double precision) counts as none.

    Attributes:
        layer: Whose output is F, by its name in the classifier. None for that of the last stage,
            which in DenseNet comes before its last batch norm and ReLU; for the model's default
            layer if the net has no stages. It is one that gives more than one cell: of images of
            32x32, for which `layer4` of torchvision's ResNets gives one, it is `layer3` of resnet18
            and `layer4.0.bn1` of resnet50.
        fin_relu: Whether a ReLU follows `"every"` batch norm of FIN, or the second and the fourth,
            `"alternate"`. The published code has the one in its nets for ImageNet, the other in
            those for CIFAR, as xcam's recipes have it. None for `"every"`.
        stem_stride: What the stride of the first convolution, `conv1`, is set to, 1 or 2: the
            published ResNets for ImageNet have 1, and maps of 14x14 instead of 7x7. None leaves
            it.

    Raises:
        LayerError: The layer gives no map, or the net has no convolution `conv1` to set.
        ValueError: A parameter out of its range.
    """

    layer: Layer | None = None
    fin_relu: Rectified | None = None
    stem_stride: Literal[1, 2] | None = None

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="lficam",
        title="LFI-CAM",
        paper="Lee et al., 2021, arXiv:2105.00937",
        family="trainable",
        cost="1 forward",
        class_specific=False,
        signed=False,
        alters_prediction=True,
    )

    def attach(self, model: nn.Module, like: Tensor | None = None) -> nn.Module:
        """Return the classifier with FIN attached; see `TrainableMethod.attach`."""
        backbone = Backbone(model, like)
        if self.stem_stride is not None:
            _set_stem(backbone.net, self.stem_stride)
        layer = _last_features(backbone) if self.layer is None else backbone.layer(self.layer)
        relu = self.fin_relu or "every"
        head = FeatureImportance(backbone.shape(Place(layer))[1], relu)
        return backbone.with_head(head, dataclasses.replace(self, layer=layer, fin_relu=relu))

    def logits(self, net: Headed, images: Tensor) -> Tensor:
        """Return the logits of the classifier that goes on with F (1 + A)."""
        place = Place(self.parameters()["layer"])
        gray = images.mean(1, keepdim=True)  # now: the classifier may work in place on the images

        def attend(features: Tensor) -> Tensor:
            check_map(features, place)
            attention: Tensor = net.head(features, gray)
            return features * (1 + attention.to(features.dtype))

        return tapped(net, images, {place: attend})

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy; see `TrainableMethod.loss`."""
        logits = extract_logits(net(images), len(images))
        return compute_class_loss(logits, labels), logits

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return A, (B, h, w) at the layer's size; see `Method.maps`."""
        check_same_head(self, model)
        return read_head(model, images, target)[:, 0]


class FeatureImportance(nn.Module):
    """FIN, the feature importance network, and the attention map that it makes of the features.

    Args:
        channels: C of the features.
        relu: After which of the batch norms a ReLU follows.
    """

    def __init__(self, channels: int, relu: Rectified) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(4):
            layers += [conv(channels, channels, 3), nn.BatchNorm2d(channels)]
            if relu == "every" or index % 2:
                layers.append(nn.ReLU(inplace=True))
        self.fin = nn.Sequential(*layers)
        for module in self.fin:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor, gray: Tensor) -> Tensor:
        """Return A (B, 1, h, w) of features (B, C, h, w) and gray images (B, 1, H, W)."""
        exact = torch.promote_types(features.dtype, torch.float32)
        wide = features.to(exact)
        small = F.interpolate(gray.to(exact), wide.shape[2:], mode="bilinear", align_corners=False)
        masked = _stretch(wide).where(wide != 0, 0) * small
        scores = self.fin(masked.to(features.dtype)).to(exact).mean((2, 3))
        weights = scores.softmax(1)[:, :, None, None]
        raw = (weights * wide).sum(1, keepdim=True).relu()
        return _stretch(raw, flat=raw)


def _stretch(maps: Tensor, flat: Tensor | None = None) -> Tensor:
    """Divide each (h, w) map by its range, into [0, 1]; where it has none, give `flat`, or 1.

    A quotient's gradient is one over the range. Below the root of the smallest normal number the
    sums and squares of such gradients overflow, and so that stands for no range.
    """
    lowest, highest = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    span = highest - lowest
    ranged = span > math.sqrt(torch.finfo(maps.dtype).tiny)
    stretched = (maps - lowest) / span.where(ranged, 1)
    return stretched.where(ranged, torch.ones_like(maps) if flat is None else flat)


def _last_features(backbone: Backbone) -> str:
    """Return the last stage, or the default layer where that is a single convolution, as in VGG."""
    stage = backbone.last_stage()
    if stage is None or isinstance(backbone.net.get_submodule(stage), nn.Conv2d):
        return backbone.default_layer()
    return stage


def _set_stem(net: nn.Module, stride: int) -> None:
    stem = getattr(net, "conv1", None)
    if not isinstance(stem, nn.Conv2d):
        raise LayerError(
            f"stem_stride is for nets whose first convolution is called 'conv1', as torchvision's "
            f"ResNets, and {type(net).__name__} has none; leave it out"
        )
    stem.stride = (stride, stride)
