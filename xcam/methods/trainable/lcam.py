"""L-CAM: a convolution, trained on a frozen classifier, that gives each class its map."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.core import MethodSpec, Target, TrainableMethod, extract_logits, find_headed
from xcam.core.settings import NonNegative, Positive
from xcam.engine import Layer
from xcam.engine.layout import Layout
from xcam.methods.cam.features import capture_activations
from xcam.methods.trainable.backbone import Backbone
from xcam.methods.trainable.heads import check_same_head, compute_slopes
from xcam.methods.trainable.lcam_masks import area, make_masks, select, variation
from xcam.methods.trainable.taps import Place, read_features, tapped

__all__ = ["LCAMFm", "LCAMImg"]

Labels = Literal["predicted", "given"]
Regularized = Literal["own_label", "batch_labels"]

_PAPER = "Gkartzonika et al., 2022, arXiv:2209.11189"


@dataclass(frozen=True)
class LCAM(TrainableMethod):
    """The settings, the head, the loss of its masks and the maps that both variants share."""

    layer: Layer | None = None
    labels: Labels = "predicted"
    mask_reg: Regularized = "batch_labels"
    tv_weight: NonNegative = 0.01
    area_weight: NonNegative = 2.0
    ce_weight: NonNegative = 1.5
    area_power: Positive = 0.3
    zero_init: bool = False
    sigmoid: bool = False

    def attach(self, model: nn.Module, like: Tensor | None = None) -> nn.Module:
        """Return the frozen classifier with the head; see `TrainableMethod.attach`."""
        backbone = Backbone(model, like)
        given = self.layer
        layer = backbone.default_layer() if given is None else backbone.layer(given)
        channels = backbone.shape(Place(layer), any_layout=True)[1]
        head = nn.Conv2d(channels, backbone.num_classes, kernel_size=1)
        if self.zero_init:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(cast(Tensor, head.bias))
        return backbone.with_head(head, dataclasses.replace(self, layer=layer), ["classifier"])

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return maps (B, h, w) at the layer's size; see `Method.maps`."""
        check_same_head(self, model, free=self.parameters().keys() - {"layer"})
        headed = find_headed(model)
        layer = headed.classifier.get_submodule(headed.method.parameters()["layer"])
        features = capture_activations(model, images, target, layer)
        raw: Tensor = headed.head(features.to(next(headed.head.parameters()).dtype))
        raw = raw.sigmoid() if self.sigmoid else raw
        if target.classes is not None:
            return select(raw, target.classes)[:, 0]
        return torch.einsum("bk,bkhw->bhw", compute_slopes(target).to(raw.dtype), raw)

    def _read(self, net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B, K) and the features (B, C, h, w) of a clean pass."""
        place, found = _place(net), []

        def keep(features: Tensor) -> None:
            found.append(_read_map(net, images, features)[0])

        with torch.no_grad():
            return tapped(net, images, {place: keep}), found[0]

    def _weighted(self, masks: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of the masks (B, K, h, w) of all classes and the logits behind them."""
        chosen = select(masks, labels) if self.mask_reg == "own_label" else masks[:, labels]
        return (
            self.tv_weight * variation(chosen)
            + self.area_weight * area(chosen, self.area_power)
            + self.ce_weight * F.cross_entropy(logits, labels)
        )


@dataclass(frozen=True)
class LCAMFm(LCAM):
    """L-CAM-Fm: maps with which a frozen classifier decides the same from masked features.

    The attention mechanism is one 1x1 convolution of the features F (C, h, w) to a map a class
    (Gkartzonika et al., 2022, arXiv:2209.11189): C·K weights and K biases, 513,000 for VGG-16 and
    2,049,000 for ResNet-50 with 1000 classes. Nothing else is trained. With c its output and
    a = sigmoid(c), the rest of the classifier goes on with A F in training, where A = a_y is the
    map of the label y, to logits z:

        loss = 0.01 V(A) + 2 mean((A + 0.0005)^0.3) + 1.5 cross-entropy(z, y)

    V is half the sum of the squared differences between neighbours in columns and rows, and of 0.3
    times the squared values along the four edges, a mean over images. The map of class k is c_k; of
    a callable target Σ_k ∂s/∂z_k c_k, s being its score. The classifier's logits, weights,
    statistics and dropout are those of evaluation, also in training, which with predicted labels
    takes a clean pass besides. c is positive where more than half of the features is let through.

    V and the mean are taken over the maps of all labels of a batch, in each of its images, as in
    the published code, to which these weights belong: that is what darkens the maps of classes that
    an image does not show. V is then about as many times larger as there are images in the batch;
    in a part of it alone, where `accumulate` or several processes share a step. With
    `mask_reg="own_label"` they are taken over A alone: nothing keeps the maps of classes apart, and
    the weights are to be tuned again. The published code trains VGG-16 with active dropout, which
    is not offered. Its variants that are trained by the cross-entropy alone are
    `tv_weight=0, area_weight=0, ce_weight=1`.

    The convolution starts from torch's random weights. Where features are large, a is then close to
    0 or 1 before training, and a class whose maps start near 0 can stay there: the cross-entropy
    has no slope in c left, and the mean has one. `zero_init=True` starts every map at 1/2.

    Attributes:
        layer: Whose output is F, by its name in the classifier: `features.29` of VGG-16, or
            `features.30`, behind the last pooling, for maps of 7x7. None for the model's default
            layer, which gives more than one cell: of images of 32x32, for which `layer4` of
            torchvision's ResNets gives one, it is `layer3` of resnet18 and `layer4.0.bn1` of
            resnet50. Of transformers F are the patches; class and register tokens are left as they
            are.
        labels: Whether y is the class that the classifier predicts for the image that it is
            trained on, or the one `"given"` by the data, see `xcam.data.relabel`.
        mask_reg: Which maps V and the mean are taken over.
        tv_weight: Of V.
        area_weight: Of the mean.
        ce_weight: Of the cross-entropy.
        area_power: The exponent in the mean.
        zero_init: Whether the convolution starts from zeros.
        sigmoid: Whether the maps are a instead of c.

    Raises:
        LayerError: The layer gives no map.
        ValueError: A parameter out of its range.
    """

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="lcam_fm", title="L-CAM-Fm", paper=_PAPER, family="trainable", cost="1 forward"
    )

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the loss of masked features; see `TrainableMethod.loss`."""
        clean = None
        if self.labels == "predicted":
            clean, _ = self._read(net, images)
            labels = clean.argmax(1)
        labels = _require_one_class(labels)
        head, place, found = find_headed(net).head, _place(net), []

        def mask(features: Tensor) -> Tensor:
            maps, layout = _read_map(net, images, features)
            found.append(make_masks(head, maps))
            return features * layout.spread(select(found[0], labels)).to(features.dtype)

        logits = tapped(net, images, {place: mask})
        return self._weighted(found[0], logits, labels), clean


@dataclass(frozen=True)
class LCAMImg(LCAM):
    """L-CAM-Img: maps with which a frozen classifier decides the same from masked images.

    As `LCAMFm`, but that in training the map A, resized bilinearly, multiplies the pixels before
    their normalisation, and the classifier sees the image again: two passes in training, whoever
    gives the labels, and one for a map (Gkartzonika et al., 2022, arXiv:2209.11189). Where a model
    normalises nothing itself, what is masked becomes 0 in its own scale: `xcam.models.Normalized`
    makes that black. Of the class that the classifier sees in a black image the maps may vanish, c
    is negative everywhere: nothing has to be shown for it. The published ResNet-50 that is trained
    by the cross-entropy alone reads its maps off images that it did not normalise, which is not
    offered.

    Attributes:
        layer: See `LCAMFm`, as all others.
        labels: Whether y is the class that the classifier predicts, or the one `"given"`.
        mask_reg: Which maps V and the mean are taken over.
        tv_weight: Of V.
        area_weight: Of the mean.
        ce_weight: Of the cross-entropy.
        area_power: The exponent in the mean.
        zero_init: Whether the convolution starts from zeros.
        sigmoid: Whether the maps are a instead of c.

    Raises:
        LayerError: The layer gives no map.
        ValueError: A parameter out of its range.
    """

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="lcam_img", title="L-CAM-Img", paper=_PAPER, family="trainable", cost="1 forward"
    )

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of masked images; see `TrainableMethod.loss`."""
        clean, features = self._read(net, images)
        labels = _require_one_class(clean.argmax(1) if self.labels == "predicted" else labels)
        masks = make_masks(find_headed(net).head, features)
        size = images.shape[2:]
        large = F.interpolate(select(masks, labels), size, mode="bilinear", align_corners=False)
        logits = extract_logits(net(images * large.to(images.dtype)), len(images))
        return self._weighted(masks, logits, labels), clean


def _place(net: nn.Module) -> Place:
    return Place(find_headed(net).method.parameters()["layer"])


def _read_map(net: nn.Module, images: Tensor, features: Tensor) -> tuple[Tensor, Layout]:
    """Return features of a pass as (B, C, h, w), and their layout."""
    headed = find_headed(net)
    channels = cast(nn.Conv2d, headed.head).in_channels
    return read_features(features, images, headed.classifier, _place(net), channels)


def _require_one_class(labels: Tensor) -> Tensor:
    if labels.ndim != 1:
        raise ValueError(
            f"labels='given' takes one class an image, got labels of shape {tuple(labels.shape)}, "
            "as of mixed images, or of images with several labels; mix nothing, or use "
            "labels='predicted'"
        )
    return labels
