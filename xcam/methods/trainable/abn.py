"""ABN, the attention branch network."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import (
    Headed,
    MethodSpec,
    Target,
    TrainableMethod,
    compute_class_loss,
    find_headed,
)
from xcam.engine import Layer, untouched
from xcam.errors import LayerError
from xcam.methods.trainable.backbone import Backbone
from xcam.methods.trainable.heads import check_same_head, read_head
from xcam.methods.trainable.taps import Place, check_map, tapped
from xcam.models.cifar.stages import conv

__all__ = ["ABN"]


@dataclass(frozen=True)
class ABN(TrainableMethod):
    """ABN, the attention branch network: a second classifier, whose attention weights the features.

    The branch reads the features g before the last stage (Fukui et al., 2019, arXiv:1812.10025).
    It is a copy of that stage with stride 1, BN, 1x1 convolution to K channels, one a class, BN,
    ReLU. From these responses T it makes, with convolutions without bias,

        A = sigmoid(BN(conv3x3(T))),   auxiliary logits = mean_ij conv1x1(T)

    The last stage goes on with g (1 + A). The loss is the sum of both cross-entropies, unweighted.
    A is the map, of whatever class: `target` is accepted and makes no difference. The branch starts
    from new weights, also on a trained classifier; only parameters that no `reset_parameters` of
    their module draws, such as ConvNeXt's `layer_scale`, are copied as they are. Two things are in
    the published code and not in the paper: 3x3 instead of 1x1 before the sigmoid, with which its
    numbers were made, and the BN behind the 1x1 convolution.

    Attributes:
        stage: The last stage, by its name in the classifier. None for the outermost module with
            convolutions that gives the last features and reads features at most twice as large a
            side: `layer4` of torchvision's ResNets, `stage3` of xcam's CIFAR nets, the last
            dense block of DenseNet, and the last convolution of VGG. What it reads and gives
            has more than one cell: of images of 32x32, for which `layer4` of torchvision's ResNets
            gives one, it is `layer3` of resnet18 and `layer4.0.conv1` of resnet50.
        branch_norm: Whether BN follows the copy of the stage: in all of the published nets but
            ResNeXt, as xcam's recipes have it. None for True.

    Raises:
        LayerError: There is no such stage, it reads no feature map but a vector, tokens or the
            image, or a copy of it with stride 1 does not keep the map's size.
    """

    stage: Layer | None = None
    branch_norm: bool | None = None

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="abn",
        title="ABN",
        paper="Fukui et al., 2019, arXiv:1812.10025",
        family="trainable",
        cost="1 forward",
        class_specific=False,
        signed=False,
        normalized=True,
        alters_prediction=True,
    )

    def attach(self, model: nn.Module, like: Tensor | None = None) -> nn.Module:
        """Return the net with the branch attached; see `TrainableMethod.attach`."""
        backbone = Backbone(model, like)
        given = self.stage
        stage = backbone.last_stage() if given is None else backbone.layer(given)
        if stage is None:
            raise LayerError(
                f"no stage of {type(backbone.net).__name__} is found that ends its convolutions "
                "and reads a feature map (B, C, h, w); give a convolutional net, or name the one "
                "that the attention is to come before: stage=…"
            )
        before, after = backbone.shape(Place(stage, "input")), backbone.shape(Place(stage))
        same_size = _copy_at_stride_1(backbone.net.get_submodule(stage))
        norm = self.branch_norm is not False
        branch = backbone.adapt(AttentionBranch(same_size, after[1], backbone.num_classes, norm))
        _check_branch(branch, backbone.blank.new_zeros(before), stage)
        filled = dataclasses.replace(self, stage=stage, branch_norm=norm)
        return backbone.with_head(branch, filled)

    def logits(self, net: Headed, images: Tensor) -> Tensor:
        """Return the logits of the classifier whose last stage goes on with g (1 + A)."""
        return _attend(net, images)[0]

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of both cross-entropies; see `TrainableMethod.loss`."""
        logits, auxiliary = _attend(net, images)
        loss = compute_class_loss(logits, labels) + compute_class_loss(auxiliary, labels)
        return loss, logits

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return A, (B, h, w) in [0, 1] at the size of what the stage reads; see `Method.maps`."""
        check_same_head(self, model)
        return read_head(model, images, target)[:, 0]


def _attend(net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits (B, K) of the last stage and those of the branch."""
    headed, found = find_headed(net), list[Tensor]()
    place = Place(headed.method.parameters()["stage"], "input")

    def attend(features: Tensor) -> Tensor:
        check_map(features, place)
        attention, auxiliary = headed.head(features)
        found.append(auxiliary)
        changed: Tensor = features * (1 + attention)
        return changed

    return tapped(net, images, {place: attend}), found[0]


class AttentionBranch(nn.Module):
    """The branch that makes the attention map and the auxiliary logits.

    Args:
        stage: From g (B, c, h, w) to (B, width, h, w).
        width: Channels that it gives.
        classes: K.
        norm: Whether BN follows it.
    """

    def __init__(self, stage: nn.Module, width: int, classes: int, norm: bool) -> None:
        super().__init__()
        self.stage = stage
        self.responses = nn.Sequential(
            nn.BatchNorm2d(width) if norm else nn.Identity(),
            conv(width, classes, 1),
            nn.BatchNorm2d(classes),
            nn.ReLU(inplace=True),
        )
        self.attention = nn.Sequential(conv(classes, 1, 3), nn.BatchNorm2d(1), nn.Sigmoid())
        self.auxiliary = conv(classes, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return A (B, 1, h, w) and auxiliary logits (B, K) of features g (B, c, h, w)."""
        responses = self.responses(self.stage(features))
        return self.attention(responses), self.auxiliary(responses).mean((2, 3))


def _copy_at_stride_1(stage: nn.Module) -> nn.Module:
    """Copy a stage with stride 1, and with new weights where its modules draw them."""
    stage = copy.deepcopy(stage).requires_grad_(True)
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return stage


def _check_branch(branch: AttentionBranch, features: Tensor, stage: str) -> None:
    """Refuse a branch that changes the size of the features, or writes into them."""
    version, size = features._version, features.shape[2:]
    try:
        with untouched(branch), torch.no_grad():
            attention, _ = branch(features)
        kept = attention.shape[2:] == size
    except RuntimeError:  # its parts end at different sizes
        kept = False
    if not kept:
        raise LayerError(
            f"a copy of stage {stage!r} with stride 1 does not keep the size {tuple(size)} of what "
            "it reads: pooling, or a convolution without padding, shrinks it; name another stage"
        )
    if features._version != version:
        raise LayerError(
            f"stage {stage!r} begins with an operation in place, such as ReLU(inplace=True), which "
            "would change the features that the attention is put on; set inplace=False there"
        )
